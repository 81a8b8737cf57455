"""What the tests share: tiny checkpoints and recordings, recipes' command lines."""

import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import FAMILIES, tiny_checkpoint

ROOT = Path(__file__).parent.parent
RATE = 16000
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PETL_CACHE"] = tempfile.mkdtemp(prefix="petl_cache_")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
torch.set_num_threads(1)  # the tensors are tiny


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """A tiny random checkpoint of every family: `{family: folder}`."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: tiny_checkpoint(name, root / name) for name in FAMILIES}


def tone(path, frequency, seconds=0.4, rate=RATE, seed=0, **kwargs):
    """Write a tone in some noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    sound = 0.3 * np.sin(2 * np.pi * frequency * time)
    sound = sound + 0.02 * generator.standard_normal(len(time))
    soundfile.write(path, sound, rate, **kwargs)


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory):
    """One's own data: three classes of ten short clips."""
    root = tmp_path_factory.mktemp("sounds")
    for label, frequency in (("low", 200), ("middle", 800), ("high", 3000)):
        for i in range(10):
            path = root / label / f"{label}{i}.wav"
            tone(path, frequency * (1 + 0.02 * i), 0.3 + 0.02 * i, seed=i)
    return root


@pytest.fixture(scope="session")
def esc50_folder(tmp_path_factory):
    """A miniature ESC-50: two classes, four clips of each in every fold."""
    root = tmp_path_factory.mktemp("ESC-50")
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, (label, frequency) in {3: ("dog", 300), 7: ("rain", 2000)}.items():
            for i in range(4):
                name = f"{fold}-{i}-A-{target}.wav"
                seed = 100 * fold + 10 * target + i
                tone(root / "audio" / name, frequency + 5 * i, rate=22050, seed=seed)
                rows.append(f"{name},{fold},{target},{label},False,{seed},A")
    (root / "meta").mkdir()
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return root


def command(recipe, *arguments):
    """The command line of a recipe."""
    train = ROOT / "recipes" / recipe / "train.py"
    hparams = ROOT / "recipes" / recipe / "hparams" / "adapter.yaml"
    if not any(str(a).endswith(".yaml") for a in arguments):
        arguments = (hparams, *arguments)
    return [sys.executable, str(train), *map(str, arguments)]


def run(recipe, *arguments, cwd=None):
    """Run a recipe as a user does; gives returncode, stdout and stderr."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(recipe, *arguments),
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=600,
    )


@contextmanager
def limited(size):
    """As `ulimit -f` limits the size of files, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def together(function, calls):
    """Call a function so many times at once, each in a process of its own, which share
    their imports; `calls` are its arguments."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["petl_modules.train.run", "petl_modules.tts.task"])
    started = [context.Process(target=function, args=args) for args in calls]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
    assert [process.exitcode for process in started] == [0] * len(started)


def run_here(recipe, *arguments):
    """The same in this process, which saves the seconds of a start; raises what ends
    it."""
    train, *argv = command(recipe, *arguments)[1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [train, *argv])
        patch.syspath_prepend(Path(train).parent)
        runpy.run_path(train, run_name="__main__")
