"""Processes that train together learn what one learns, whatever the method and task,
and however the clips of a batch are parted among them."""

import json
import os
import sys
import time
from itertools import chain

import layouts
import pytest
import torch
from conftest import ROOT, together
from tiny import tiny_checkpoint, tiny_speech_base, tiny_writer

from petl_modules.errors import UserError
from petl_modules.train.built import Built
from petl_modules.train.config import load_config
from petl_modules.train.launch import run_together
from petl_modules.train.processes import SharedBatches
from petl_modules.train.recipes import prepare_of
from petl_modules.train.run import manifests, on_main, trained

# Of the last batch of five, two of three processes have no clip
SOUNDS = ("AudioFolder", "sounds", "xlsr", "--batch_size=17", "--number_of_epochs=2")
TEXTS = (
    "--method=lora",
    "--skip_broken=True",
    "--batch_size=4",
    "--number_of_epochs=1",
)
SPOKEN = ("--valid_sentences=2", "--test_sentences=2", "--samples=0")
# What differs for processes; all others were tried too, and are means over clips
METHODS = ("full", "conformer", "lora", "adalora", "prompt", "soft_moa")
RUNS = {
    **{method: (*SOUNDS, f"--method={method}") for method in METHODS},
    "ctc": ("LibriSpeech/ASR", "librispeech", "xlsr", *TEXTS),
    "voices": ("VoxCeleb", "voxceleb", "xlsr", *TEXTS, "--valid_speakers=2"),
    "writing": ("LibriSpeech/whisper", "librispeech", "writer", *TEXTS),
    "speaking": ("L2ARCTIC/TTS", "l2arctic", "speech", *TEXTS, *SPOKEN),
}
# Dropout draws other numbers in every process
OWN = {"ctc": ["--head_dropout=0", "--lr=0.001"]}
QUIET = {
    **dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout"), 0.0),
    **dict.fromkeys(("feat_proj_dropout", "layerdrop"), 0.0),
    "apply_spec_augment": False,
}


def wanted(run):
    """How many processes a run is tried in."""
    return (1, 2, 3) if run in ("conformer", "writing") else (1, 3)


@pytest.fixture(scope="module")
def home(tmp_path_factory, class_folders):
    """What one, two and three processes learned: `RUN PROCESSES.pt`."""
    home = tmp_path_factory.mktemp("together")
    (home / "sounds").symlink_to(class_folders)
    for name in ("librispeech", "l2arctic", "voxceleb"):
        (home / name).mkdir()
        getattr(layouts, name)(home / name)
    tiny_checkpoint("xlsr", home / "xlsr")
    config = home / "xlsr" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **QUIET}))
    tiny_writer(home / "writer")
    tiny_speech_base(home / "speech")
    together(learn, [(rank, n, home) for n in (1, 2, 3) for rank in range(n)])
    return home


@pytest.mark.parametrize(
    ("processes", "run"), [(n, run) for n in (2, 3) for run in RUNS if n in wanted(run)]
)
def test_processes_learn_what_one_learns(home, run, processes):
    one, several = (torch.load(home / f"{run} {n}.pt") for n in (1, processes))
    # batch statistics are sums of sums
    near = 1e-3 if run == "conformer" else 1e-5
    assert one.keys() == several.keys() and one
    for name, tensor in one.items():
        torch.testing.assert_close(several[name], tensor, atol=near, rtol=near)


def test_every_clip_of_a_batch_is_read_by_one_process():
    batches = [[4, 2, 3, 0, 5], [1]]
    parts = [SharedBatches(batches, rank, 3) for rank in range(3)]
    read = [[*part] for part in parts]
    for step, batch in enumerate(batches, start=1):
        own = [r[step - 1] for r, p in zip(read, parts, strict=True) if p.mine(step)]
        assert sorted(chain.from_iterable(own)) == sorted(batch)
    assert [part.mine(2) for part in parts] == [True, False, False]


@pytest.mark.parametrize(
    ("rest", "ends"),
    [
        ("", 0),
        ("if rank == 1: sys.exit(2)\ntime.sleep(60)", 2),
        (
            "if rank == 1: os.kill(os.getpid(), 9)\ntime.sleep(60)",
            "by SIGKILL. The same",
        ),
    ],
)
def test_processes_end_with_the_first_that_fails(tmp_path, rest, ends):
    program = f"""
import os, pathlib, sys, time
rank = int(os.environ["RANK"])
assert os.environ["LOCAL_RANK"] == str(rank) and os.environ["WORLD_SIZE"] == "3"
pathlib.Path({str(tmp_path)!r}, str(rank)).write_text(str(os.getpid()))
while len(os.listdir({str(tmp_path)!r})) < 3: time.sleep(0.01)
{rest}"""
    began = time.monotonic()
    if isinstance(ends, str):
        with pytest.raises(UserError, match=f"One of 3 processes was killed {ends}"):
            run_together([sys.executable, "-c", program], 3)
    else:
        assert run_together([sys.executable, "-c", program], 3) == ends
    assert time.monotonic() - began < 30
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


# Helpers


def learn(rank, processes, home):
    """Be one of several processes: train all, and leave what was learned."""
    if processes > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        meet = f"file://{home}/meet{processes}"
        torch.distributed.init_process_group(
            "gloo", meet, rank=rank, world_size=processes
        )
    for name, (recipe, data, source, *more) in RUNS.items():
        if processes not in wanted(name):
            continue
        recipe = ROOT / "recipes" / recipe
        folder = home / f"{name} {processes}"
        arguments = [
            f"--data_folder={home / data}",
            f"--source={home / source}",
            f"--output_folder={folder}",
            "--device=cpu",
            "--distributed_backend=gloo",
            "--noprogressbar=True",
            "--eps=0.001",  # Adam would make much of the last digit of a gradient
            *more,
        ]
        arguments += OWN.get(name, [])
        prepare = prepare_of(recipe)
        config = load_config(recipe / "hparams" / "adapter.yaml", arguments, prepare)
        prepared = on_main(manifests, prepare, config, folder / "data")
        classes = None if prepared.labels is None else len(prepared.labels)
        config = config.replace(num_classes=classes, labels=prepared.labels)
        brain, _ = trained(Built.of(config), prepared, folder)
        if rank == 0:
            parameters = brain.task_model.named_parameters()
            learned = {n: p.detach() for n, p in parameters if p.requires_grad}
            torch.save(learned, home / f"{name} {processes}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()
