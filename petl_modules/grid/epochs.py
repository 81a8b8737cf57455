"""A recipe's epochs beside its raw steps: what reading clips costs on top of training.

`python -m petl_modules.grid.epochs` makes a folder of noise at 44.1 kHz, trains on it
as recipes/AudioFolder does, and compares an epoch with as many steps of one batch that
lies on the device.
"""

import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import speechbrain as sb
import torch

from petl_modules.data.datasets import batching, make_datasets
from petl_modules.train.brain import PetlBrain
from petl_modules.train.built import Built
from petl_modules.train.config import load_config
from petl_modules.train.run import make_brain, manifests
from petl_modules.train.speedups import speed_up

RATE, CLASSES = 44100, 4
RECIPE = Path(__file__).parents[2] / "recipes" / "AudioFolder"


def main(argv: list[str] | None = None) -> None:
    """Measure: `CLIPS SECONDS [--knob=value ...]`."""
    clips, seconds, *knobs = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        make_clips(Path(folder) / "data", int(clips), float(seconds))
        measure(Path(folder), knobs)


def make_clips(folder: Path, clips: int, seconds: float) -> None:
    """Write noise, in a folder for each class."""
    generator = np.random.default_rng(0)
    for place in range(clips):
        path = folder / f"class{place % CLASSES}" / f"{place}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = generator.standard_normal(round(seconds * RATE)) * 0.1
        soundfile.write(path, noise.astype(np.float32), RATE)


def measure(folder: Path, knobs: list[str]) -> None:
    """Print seconds an epoch, and of its raw steps."""
    sys.path.insert(0, str(RECIPE))
    from audiofolder_prepare import prepare_audiofolder

    places = [f"--data_folder={folder / 'data'}", f"--output_folder={folder / 'out'}"]
    config = load_config(RECIPE / "hparams" / "adapter.yaml", [*places, *knobs])
    began = time.perf_counter()
    prepared = manifests(prepare_audiofolder, config, folder / "manifests")
    config = config.replace(num_classes=CLASSES, labels=prepared.labels)
    built = Built.of(config)
    brain = make_brain(built, prepared, folder / "run")
    speed_up(built.model, built.machine, brain.device)
    sets = make_datasets(
        prepared,
        brain.task,
        built.model,
        built.head,
        built.loading,
        brain.device,
        clip_folder=built.clip_folder,
    )
    loader = batching(built.loading, sets["train"], brain.task, 0, shuffle=True)
    train = brain.make_dataloader(sets["train"], sb.Stage.TRAIN, **loader)
    brain.judge_start = False
    brain.on_fit_start()
    print(f"start {time.perf_counter() - began:.2f} s, {len(train)} steps an epoch")
    for epoch in (1, 2, 3):
        began = time.perf_counter()
        brain.counter.current = epoch
        brain._fit_train(train, epoch, enable=False)
        synchronize(brain.device)
        print(f"epoch {epoch} {time.perf_counter() - began:.2f} s")
    raw = raw_steps(brain, train)
    print(f"raw steps {raw:.2f} s")


def raw_steps(brain: PetlBrain, train: Any) -> float:
    """Seconds of as many steps as an epoch has, of one batch on the device."""
    brain.on_stage_start(sb.Stage.TRAIN, 4)
    brain.modules.train()
    batch = next(iter(train)).to(brain.device)
    synchronize(brain.device)
    began = time.perf_counter()
    for step in range(len(train)):
        brain.step = step + 1
        brain.fit_batch(batch)
    brain.losses.look()
    synchronize(brain.device)
    return time.perf_counter() - began


def synchronize(device: str | torch.device) -> None:
    """Wait until the device has done its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
