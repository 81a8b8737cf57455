"""Kill runs at random moments, change things between, and see what comes out.

`python tests/kill_and_resume.py [--moments N] [--seed S] [--kinds NAME ...]`, by hand:
a moment takes two starts of a recipe. A run that is killed and started again must end
with the tensors of one that was not. Where data, weights or settings were changed
between, it must refuse with a sentence that names what changed; where a checkpoint was
damaged, it must end with the same tensors.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import layouts
import numpy as np
import soundfile
import torch
from conftest import command, tone
from safetensors.torch import load_file, save_file
from tiny import tiny_checkpoint, tiny_speech_base, tiny_writer

PATIENCE = 300  # seconds that a tiny run may take
CHANGES = ("nothing", "nothing", "data", "weights", "settings", "bit")
NAMES = {
    "data": ("data have changed",),
    "weights": ("weights have changed",),
    "settings": ("eps=",),
}


@dataclass(frozen=True)
class Kind:
    """A kind of run.

    Attributes
    ----------
    recipe : str
    source : str
        Which tiny checkpoint.
    data : str
        Which tiny data set.
    arguments : tuple of str
    """

    recipe: str
    source: str
    data: str
    arguments: tuple[str, ...]


SOUNDS = ("--max_duration=1.0", "--batch_size=4", "--ckpt_interval_steps=3")
KINDS = {
    "conformer": Kind(
        "AudioFolder",
        "ast",
        "sounds",
        (
            *SOUNDS,
            "--method=conformer",
            "--rank=4",
            "--number_of_epochs=4",
            "--head_start_epochs=3",
        ),
    ),
    "ctc": Kind(
        "LibriSpeech/ASR",
        "wav2vec2",
        "librispeech",
        ("--method=lora", "--number_of_epochs=4", "--ckpt_interval_steps=1"),
    ),
    "whisper": Kind(
        "LibriSpeech/whisper",
        "writer",
        "librispeech",
        ("--method=lora", "--number_of_epochs=4", "--max_duration=2.0"),
    ),
    "synthesis": Kind(
        "L2ARCTIC/TTS",
        "speech",
        "l2arctic",
        (
            "--method=bottleneck",
            "--number_of_epochs=3",
            "--batch_size=2",
            "--valid_sentences=1",
            "--test_sentences=1",
            "--samples=0",
        ),
    ),
    "few shots with patience": Kind(
        "AudioFolder",
        "whisper",
        "sounds",
        (
            *SOUNDS,
            "--method=lora",
            "--few_shot=2",
            "--patience=2",
            "--number_of_epochs=8",
            "--head_start_epochs=0",
        ),
    ),
    "cached probe": Kind(
        "AudioFolder",
        "whisper",
        "sounds",
        (*SOUNDS, "--method=linear", "--number_of_epochs=8"),
    ),
    "averaged and augmented": Kind(
        "AudioFolder",
        "ast",
        "sounds",
        (
            *SOUNDS,
            "--method=bottleneck",
            "--average=2",
            "--mixup=0.3",
            "--time_shift=True",
            "--speeds=[0.9,1.1]",
            "--number_of_epochs=5",
            "--head_start_epochs=2",
            "--head_start_counts=True",
        ),
    ),
}


def main() -> int:
    """Run the moments; returns how many ended wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--moments", type=int, default=40, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    options = parser.parse_args()
    counted: Counter = Counter()
    for name in options.kinds:
        with tempfile.TemporaryDirectory() as folder:
            counted += moments(name, options.moments, options.seed, Path(folder))
    for (name, change, end), count in sorted(counted.items()):
        print(f"{name:24} {change:9} {end:40} {count:4}")
    return sum(count for (*_, end), count in counted.items() if end.startswith("WRONG"))


def moments(name: str, count: int, seed: int, home: Path) -> Counter:
    """What came of so many kills of one kind."""
    kind, draw = KINDS[name], random.Random(f"{name} {seed}")
    make_world(kind, home / "world")
    whole, took = run_whole(kind, home / "world", home / "whole")
    counted: Counter = Counter()
    for number in range(count):
        work = home / f"moment{number}"
        shutil.copytree(home / "world", work / "world", copy_function=shutil.copy2)
        process = start(kind, work / "world", work / "out")
        # most of the time goes to the imports, in which nothing can be lost
        time.sleep(draw.uniform(0.35, 1.02) * took)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        change = draw.choice(CHANGES)
        end = after(kind, work, change, whole, draw)
        counted[name, change, end] += 1
        print(f"{name}, {number}, {change}: {end}", flush=True)
        shutil.rmtree(work)
    return counted


def after(kind: Kind, work: Path, change: str, whole: dict, draw) -> str:
    """How a killed run ends when something was changed."""
    begun = any(work.glob("out/**/CKPT*/WHOLE"))
    finished = any(work.glob("out/**/results.json"))
    more: tuple[str, ...] = ()
    if change == "data":
        change_data(work / "world" / "data")
    elif change == "weights":
        change_weights(work / "world" / "source")
    elif change == "settings":
        more = ("--eps=0.00002",)
    elif change == "bit":
        flip(work / "out", draw)
    process = start(kind, work / "world", work / "out", *more)
    said = process.communicate(timeout=PATIENCE)[0].decode(errors="replace")
    if "Traceback" in said and process.returncode not in (0, 2):  # PyAV prints some
        return f"WRONG: a traceback: {said.splitlines()[-1][:80]}"
    same = process.returncode == 0 and equal(whole, tensors_of(work / "out"))
    if change in ("nothing", "bit"):
        return "equal tensors" if same else f"WRONG: {said.splitlines()[-1][:120]}"
    if process.returncode == 2 and any(words in said for words in NAMES[change]):
        return "refused, naming it"
    if not begun and not finished:
        return "nothing was saved yet" if process.returncode == 0 else "WRONG: refused"
    if finished and change != "settings" and same:
        return "done before the change"
    return f"WRONG: taken up: {said.splitlines()[-1][:120]}"


# Helpers


def make_world(kind: Kind, world: Path) -> None:
    """A tiny data set and checkpoint."""
    data, source = world / "data", world / "source"
    data.mkdir(parents=True)
    if kind.data == "sounds":
        for label, frequency in (("low", 200), ("middle", 800), ("high", 3000)):
            for i in range(12):
                path = data / label / f"{label}{i}.wav"
                tone(path, frequency * (1 + 0.02 * i), 0.3 + 0.02 * i, seed=i)
    else:
        getattr(layouts, kind.data)(data)
    if kind.source == "writer":
        tiny_writer(source)
    elif kind.source == "speech":
        tiny_speech_base(source)
    else:
        tiny_checkpoint(kind.source, source)


def start(kind: Kind, world: Path, out: Path, *more: str) -> subprocess.Popen:
    """A recipe's process; what it says goes to its stdout."""
    arguments = (
        f"--data_folder={world / 'data'}",
        f"--source={world / 'source'}",
        f"--output_folder={out}",
        "--skip_broken=True",
        "--noprogressbar=True",
        *kind.arguments,
        *more,
    )
    return subprocess.Popen(
        command(kind.recipe, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )


def run_whole(kind: Kind, world: Path, out: Path) -> tuple[dict, float]:
    """The tensors of a run that is left alone, and its seconds."""
    began = time.monotonic()
    process = start(kind, world, out)
    said = process.communicate(timeout=PATIENCE)[0].decode(errors="replace")
    if process.returncode:
        sys.exit(said)
    return tensors_of(out), time.monotonic() - began


def tensors_of(out: Path) -> dict[str, torch.Tensor]:
    """The adapter of the one run in a folder."""
    paths = [p for p in out.glob("**/adapter.safetensors")]
    return load_file(paths[0]) if len(paths) == 1 else {}


def equal(one: dict, other: dict) -> bool:
    """Whether two adapters are equal bit by bit."""
    return one.keys() == other.keys() and all(one[n].equal(other[n]) for n in one)


def change_data(data: Path) -> None:
    """Another sound in the place of one clip."""
    for path in sorted(p for p in data.rglob("*") if p.suffix in (".wav", ".flac"))[:3]:
        sound, rate = soundfile.read(path)
        soundfile.write(path, np.roll(sound, len(sound) // 2), rate)


def change_weights(source: Path) -> None:
    """Other weights under the same name."""
    path = source / "model.safetensors"
    tensors = load_file(path)
    name = max(tensors, key=lambda n: tensors[n].numel())
    tensors[name] = tensors[name] + 0.01
    save_file(tensors, path, {"format": "pt"})


def flip(out: Path, draw: random.Random) -> None:
    """One bit of one file of one checkpoint."""
    files = sorted(p for p in out.glob("**/CKPT*/*") if p.stat().st_size)
    if files:
        path = draw.choice(files)
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(content))


if __name__ == "__main__":
    sys.exit(min(main(), 1))
