"""What a recipe costs beside its steps: start, head start, and reading clips.

`python -m petl_modules.grid.epochs CLIPS SECONDS [CLASSES] [--knob=value ...]` makes a
folder of noise at 44.1 kHz, trains on it as recipes/AudioFolder does, and prints, in
seconds by the clock and of the CPU:

- from the imports to the first step, of a first run and of a second on the same data,
  each a process of its own;
- of the head start, where `--head_start_epochs` asks for one, after its features;
- of an epoch that reads what earlier ones decoded, and of as many steps of one batch
  that lies on the device: both in turns, their medians, and that of their ratios.
"""

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import speechbrain as sb
import torch

from petl_modules.data.datasets import batching, make_datasets
from petl_modules.train.brain import PetlBrain
from petl_modules.train.built import Built
from petl_modules.train.config import Config, load_config
from petl_modules.train.head_start import probe_of
from petl_modules.train.run import make_brain, manifests
from petl_modules.train.speedups import speed_up

RATE, CLASSES, TURNS = 44100, 4, 5
RECIPE = Path(__file__).parents[2] / "recipes" / "AudioFolder"
START = "start"  # what a process that only starts is called with


class Seconds(NamedTuple):
    """By the clock, and of the CPU over all threads."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.cpu:.2f} s of CPU)"


class Run(NamedTuple):
    """A run that stands before its first step."""

    brain: PetlBrain
    built: Built
    sets: dict[str, Any]
    train: Any


def main(argv: list[str] | None = None) -> None:
    """Measure: `CLIPS SECONDS [CLASSES] [--knob=value ...]`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.WARNING)
    if arguments[0] == START:
        print(json.dumps(start(Path(arguments[1]), arguments[2:])))
        return
    sizes = [a for a in arguments if not a.startswith("--")]
    knobs = [a for a in arguments if a.startswith("--")]
    clips, seconds, classes = (*sizes, CLASSES)[:3]
    with tempfile.TemporaryDirectory() as folder:
        make_clips(Path(folder) / "data", int(clips), float(seconds), int(classes))
        measure(Path(folder), knobs)


def make_clips(folder: Path, clips: int, seconds: float, classes: int) -> None:
    """Write noise, in a folder for each class."""
    generator = np.random.default_rng(0)
    for place in range(clips):
        path = folder / f"class{place % classes}" / f"{place}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = generator.standard_normal(round(seconds * RATE)) * 0.1
        soundfile.write(path, noise.astype(np.float32), RATE)


def measure(folder: Path, knobs: list[str]) -> None:
    """Print what a run costs."""
    for name in ("first", "second"):
        print(f"{name} run: {started(folder, knobs)} to the first step", flush=True)
    config = config_of(folder, knobs)
    if config["head_start_epochs"]:
        measure_head_start(folder, probe_of(config))
    run = ready(config, folder, "epochs")
    run.brain.on_fit_start()
    epoch(run, 1)
    batch, turns = next(iter(run.train)).to(run.brain.device), []
    for turn in range(TURNS):
        with timed(run.brain.device) as read:
            epoch(run, 2 + turn)
        with timed(run.brain.device) as raw:
            raw_steps(run, batch)
        turns.append((read(), raw()))
    for name, own in (("an epoch", 0), ("as many raw steps", 1)):
        print(f"{name}: {middle([turn[own] for turn in turns])}")
    wall, cpu = ([e[i] / r[i] for e, r in turns] for i in (0, 1))
    print(
        f"an epoch beside its {len(run.train)} raw steps, {TURNS} turns: "
        f"{statistics.median(wall):.2f} by the clock, {statistics.median(cpu):.2f} of "
        "CPU"
    )


def measure_head_start(folder: Path, config: Config) -> None:
    """Print what a linear probe costs, without its features."""
    with timed("cpu") as features:
        run = ready(config, folder, "probe")
    print(f"features, with their run's start: {features()}")
    valid = batching(run.built.loading, run.sets["valid"], run.brain.task, 0)
    with timed(run.brain.device) as seconds:
        run.brain.fit(run.brain.counter, run.train, run.sets["valid"], valid)
        run.brain.evaluate(run.sets["valid"], min_key="error", test_loader_kwargs=valid)
    epochs, steps = config["number_of_epochs"], len(run.train)
    print(f"head start: {epochs} epochs of {steps} steps in {seconds()}", flush=True)


# Helpers


def started(folder: Path, knobs: list[str]) -> Seconds:
    """What a process of its own needs from its imports to its first step."""
    command = [sys.executable, "-m", __spec__.name, START, str(folder), *knobs]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Seconds(*json.loads(said.splitlines()[-1]))


def start(folder: Path, knobs: list[str]) -> Seconds:
    """The same, in this process."""
    with timed("cpu") as seconds:
        run = ready(config_of(folder, knobs), folder, "start")
        run.brain.on_fit_start()
        run.brain.on_stage_start(sb.Stage.TRAIN, 1)
        run.brain.step = 1
        run.brain.train_sampler.set_epoch(1)
        run.brain.fit_batch(next(iter(run.train)))
    return seconds()


def config_of(folder: Path, knobs: list[str]) -> Config:
    """The recipe's config."""
    places = [f"--data_folder={folder / 'data'}", f"--output_folder={folder / 'out'}"]
    return load_config(RECIPE / "hparams" / "adapter.yaml", [*places, *knobs])


def ready(config: Config, folder: Path, name: str) -> Run:
    """A run of the recipe, as `train.run` makes it, before its first step."""
    sys.path.insert(0, str(RECIPE))
    from audiofolder_prepare import prepare_audiofolder

    prepared = manifests(prepare_audiofolder, config, folder / "manifests")
    classes = len(prepared.labels or ())
    built = Built.of(config.replace(num_classes=classes, labels=prepared.labels))
    brain = make_brain(built, prepared, Path(tempfile.mkdtemp(name, dir=folder)))
    speed_up(built.model, built.machine, brain.device)
    sets = make_datasets(
        prepared,
        brain.task,
        built.model,
        built.head,
        built.loading,
        brain.device,
        built.feature_folder,
        built.clip_folder,
        progress=False,
    )
    loader = batching(built.loading, sets["train"], brain.task, 0, shuffle=True)
    train = brain.make_dataloader(sets["train"], sb.Stage.TRAIN, **loader)
    brain.judge_start, brain.counter.limit = False, brain.plan.periods
    return Run(brain, built, sets, train)


def epoch(run: Run, number: int) -> None:
    """One epoch of training."""
    run.brain.counter.current = number
    run.brain._fit_train(run.train, number, enable=False)


def raw_steps(run: Run, batch: Any) -> None:
    """As many steps as an epoch has, of one batch that is on the device."""
    brain = run.brain
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    brain.modules.train()
    for step in range(len(run.train)):
        brain.step = step + 1
        brain.fit_batch(batch)
    brain.step = 0
    brain.losses.look()


@contextmanager
def timed(device: str | torch.device) -> Any:
    """Gives a function that says how long the block took, once it is over."""
    synchronize(device)
    clocks: tuple[Callable[[], float], ...] = (time.perf_counter, time.process_time)
    began, ended = [clock() for clock in clocks], []
    yield lambda: Seconds(*(e - b for b, e in zip(began, ended, strict=True)))
    synchronize(device)
    ended += [clock() for clock in clocks]


def middle(found: list[Seconds]) -> Seconds:
    """The medians."""
    return Seconds(*map(statistics.median, zip(*found, strict=True)))


def synchronize(device: str | torch.device) -> None:
    """Wait until the device has done its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
