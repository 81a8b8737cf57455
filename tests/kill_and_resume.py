"""Kill runs at random moments, change things between, and see what comes out.

`python tests/kill_and_resume.py [--home FOLDER] [--rounds N] [--kinds NAME ...]`, by
hand.

A moment kills a run of one of seven kinds, at a random second of its CPU time or at one
of its file operations, changes something or nothing, and starts it again. It must end
with the tensors of a run that was not killed, also where a bit of a checkpoint was
flipped. Where data, weights or settings were changed it must refuse with a sentence
that names what changed. A table of all moments comes at the end.

What was imported once is forked for every start, so that a moment costs a few seconds.
Runs are killed in forks of this process, and go on in forks of another: what hangs on
the order of a set would differ. With `--home` the same command goes on with moments
that were interrupted.
"""

import argparse
import gc
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
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
import torch.utils.tensorboard
from conftest import run_here, tone
from safetensors.torch import load_file, save_file
from tiny import tiny_checkpoint, tiny_speech_base, tiny_writer

import petl_modules.tasks.classification
import petl_modules.train.head_start
import petl_modules.tts.task  # noqa: F401 (once, not in every run)

PATIENCE = 300  # seconds that a tiny run may take
CHANGES = ("nothing", "nothing", "data", "weights", "settings", "bit")
NAMES = {
    "data": "data have changed",
    "weights": "weights have changed",
    "settings": "eps=",
}
# What Python tells of before it does it
OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
KILLED, GOING_ON = (multiprocessing.get_context(n) for n in ("fork", "forkserver"))


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
            "--valid_sentences=2",
            "--test_sentences=2",
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
    parser.add_argument("--rounds", type=int, default=1, help="of six moments a kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--home", type=Path, help="where what was done is kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(options.home or folder).resolve()
        ends = [
            end
            for name in options.kinds
            for end in moments(name, options.rounds, options.seed, home)
        ]
    for row, count in sorted(Counter(ends).items()):
        print(f"{row[0]:24} {row[1]:9} {row[2]:40} {count:4}")
    return sum(end.startswith("WRONG") for *_, end in ends)


def moments(name: str, rounds: int, seed: int, home: Path) -> list[tuple]:
    """What came of a kind's kills: `[(kind, change, end), ...]`."""
    kind, home = KINDS[name], home / name.replace(" ", "_")
    world, ends = home / "world", []
    if not (home / "whole.json").exists():
        shutil.rmtree(home, ignore_errors=True)
        make_world(kind, world)
        began = Begun(GOING_ON, kind, world, home / "whole")
        if began.status():
            sys.exit(began.said())
    whole = tensors_of(home / "whole")
    length = json.loads((home / "whole.json").read_text())
    for number in range(rounds):
        draw = random.Random(f"{name} {seed} {number}")
        for place, change in enumerate(draw.sample(CHANGES, len(CHANGES))):
            # drawn whether it is done already or not
            kill = {"seconds": draw.uniform(0.05, 1) * length["seconds"]}
            if place % 2:
                kill = {"operations": draw.randint(1, length["operations"])}
            if change in NAMES:  # in the midst of training, where it would matter
                part = draw.uniform(0.5, 0.9)
                kill = {"operations": round(part * length["operations"])}
            record = home / f"{seed}_{number}_{place}.json"
            if not record.exists():
                work = home / "moment"
                shutil.rmtree(work, ignore_errors=True)
                shutil.copytree(world, work / "world", copy_function=shutil.copy2)
                began = Begun(KILLED, kind, work / "world", work / "out", **kill)
                if began.status() not in (0, -signal.SIGKILL, -signal.SIGPROF):
                    sys.exit(began.said())
                end = after(kind, work, change, whole, random.Random(record.name))
                record.write_text(json.dumps([name, change, end]))
                print(f"{name}, {kill}, {change}: {end}", flush=True)
            ends.append(tuple(json.loads(record.read_text())))
    return ends


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
    again = Begun(GOING_ON, kind, work / "world", work / "out", *more)
    status, said = again.status(), again.said()
    last = (said.splitlines() or ["nothing was said"])[-1][:120]
    if "Traceback" in said and status not in (0, 2):  # PyAV prints some
        return f"WRONG: a traceback: {last}"
    same = status == 0 and equal(whole, tensors_of(work / "out"))
    if change in ("nothing", "bit"):
        return "equal tensors" if same else f"WRONG: {last}"
    if status == 2 and NAMES[change] in said:
        return "refused, naming it"
    if not begun and not finished:
        return "nothing was saved yet" if status == 0 else f"WRONG: refused: {last}"
    if finished and change != "settings" and same:
        return "done before the change"
    return f"WRONG: taken up: {last}"


# Helpers


class Begun:
    """A recipe's process that has begun.

    Arguments
    ---------
    context : multiprocessing context
        Whose processes have all imports.
    kind : Kind
    world, out : Path
        Of its data and checkpoint, and of its results.
    *more : str
        Arguments.
    **kill : float or int
        seconds of CPU time, or file operations, after which it is killed.
    """

    def __init__(self, context, kind, world, out, *more, **kill):
        self.log, self.measures = (out.with_suffix(s) for s in (".log", ".json"))
        arguments = (
            f"--data_folder={world / 'data'}",
            f"--source={world / 'source'}",
            f"--output_folder={out}",
            "--skip_broken=True",
            "--noprogressbar=True",
            *kind.arguments,
            *more,
        )
        self.process = context.Process(
            target=play,
            args=(kind.recipe, arguments, out, self.log, self.measures, kill),
        )
        self.process.start()

    def status(self) -> int:
        """How it ended."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        return self.process.exitcode

    def said(self) -> str:
        """What it said."""
        return self.log.read_text(errors="replace")


def play(recipe, arguments, out, log, measures, kill):
    """Be a recipe's process; notes at its end how long it was."""
    with open(log, "wb") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    gc.freeze()  # what was imported need not be looked through
    torch.set_num_threads(1)  # before threads would race for a pool that a fork lacks
    count = itertools.count(1)

    def told(event, about):
        if event not in OPERATIONS or not str(about[0]).startswith(str(out)):
            return
        if event == "open" and not about[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if next(count) == kill.get("operations"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(told)
    if "seconds" in kill:
        signal.setitimer(signal.ITIMER_PROF, kill["seconds"])  # it is not caught
    run_here(recipe, *arguments)
    length = {"seconds": time.process_time(), "operations": next(count) - 1}
    measures.write_text(json.dumps(length))


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
    # all of them: an encoder that goes on reads no decoder, and rightly so
    moved = {n: t + 0.01 if t.is_floating_point() else t for n, t in tensors.items()}
    save_file(moved, path, {"format": "pt"})


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
