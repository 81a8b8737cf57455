"""Sounds made from formulas: a labelled set of kinds that differ in fine structure,
and endless unlabelled mixtures for pretraining. Mono, 16 kHz, float32, seeded.
"""

import json
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator

from petl_modules.console import progress_bar
from petl_modules.embedded.arranging import Source, repeated, reverberate
from petl_modules.embedded.events import EVENTS
from petl_modules.embedded.filters import Sound, filtered, random_response
from petl_modules.embedded.kinds import KINDS
from petl_modules.embedded.signals import coloured_noise, fade, level, swell, unit
from petl_modules.embedded.textures import TEXTURES
from petl_modules.files import lock, make_folder, whole, write_json

SAMPLE_RATE = 16000
MANIFEST = "made_by_formula.json"
LOCK = ".lock"
VERSION = 1


def write_sound_folder(
    folder: str | Path,
    seed: int = 0,
    clips_per_class: int = 40,
    sample_rate: int = SAMPLE_RATE,
) -> Path:
    """Write `folder/<kind>/<number>.wav`, clips of 1 to 2 s, 16 bit.

    A folder that was completed before with the same settings is left as it is, and
    one that was interrupted is completed: every clip has its own seed. Processes that
    ask for one folder at once write it one after another.

    Arguments
    ---------
    folder : str or Path
    seed : int
    clips_per_class : int
    sample_rate : int
        Hz.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    settings = {
        "version": VERSION,
        "seed": seed,
        "clips_per_class": clips_per_class,
        "sample_rate": sample_rate,
        "kinds": list(KINDS),
    }
    make_folder(folder)
    with lock(folder / LOCK):
        complete(folder, settings)
    return folder


def labelled_sound(kind: str, rng: Generator, sample_rate: int = SAMPLE_RATE) -> Sound:
    """One clip of a kind of `KINDS`: 1 to 2 s, varied in pitch, level, timing and
    noise; float32 `(samples,)` within -1 and 1."""
    samples = int(rng.uniform(1.0, 2.0) * sample_rate)
    length = int(rng.uniform(0.75, 1.0) * samples)
    start = rng.integers(0, samples - length + 1)
    clip = np.zeros(samples, np.float32)
    sound = KINDS[kind](rng, length, sample_rate)
    clip[start : start + length] = unit(sound) * fade(length, sample_rate // 100)
    if rng.random() < 0.5:
        clip = reverberate(rng, clip, sample_rate)
    noise = unit(coloured_noise(rng, samples, slope=rng.uniform(-2.0, 0.0)))
    signal_to_noise = rng.uniform(0.0, 20.0)
    clip = unit(clip) + noise * 10 ** (-signal_to_noise / 20)
    return level(clip, peak=10 ** rng.uniform(-1.3, -0.05))


def random_sound(
    rng: Generator,
    seconds: float,
    sample_rate: int = SAMPLE_RATE,
    return_sources: bool = False,
    events: dict[str, Source] | None = None,
) -> Sound | tuple[Sound, list[str]]:
    """A random scene: textures and events, one or layered, once or repeated, through
    a random room and microphone.

    Arguments
    ---------
    rng : numpy.random.Generator
    seconds : float
    sample_rate : int
        Hz.
    return_sources : bool
        Also give the names of what sounds (of `TEXTURES` and `events`).
    events : dict, optional
        Names and functions of (rng, samples, rate) that give one sound; else `EVENTS`.

    Returns
    -------
    numpy.ndarray
        float32 `(samples,)`, within -1 and 1; with `return_sources`, a pair.
    """
    events = events or EVENTS
    samples = round(seconds * sample_rate)
    layers = rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])
    scene = np.zeros(samples, np.float32)
    sources = []
    for _ in range(layers):
        if rng.random() < 0.4:
            name = str(rng.choice(list(TEXTURES)))
            layer = unit(TEXTURES[name](rng, samples, sample_rate))
            if rng.random() < 0.4:
                layer = layer * swell(rng, samples)
        else:
            name = str(rng.choice(list(events)))
            layer = repeated(rng, events[name], samples, sample_rate)
        scene += unit(layer) * 10 ** (rng.uniform(-15, 0) / 20 if sources else 0)
        sources.append(name)
    if rng.random() < 0.4:
        scene = reverberate(rng, scene, sample_rate)
    if rng.random() < 0.5:
        scene = filtered(scene, random_response(rng, depth=8.0), sample_rate)
    if rng.random() < 0.6:
        noise = coloured_noise(rng, samples, slope=rng.uniform(-2.0, 0.5))
        scene = unit(scene) + unit(noise) * 10 ** (rng.uniform(-60, -10) / 20)
    if rng.random() < 0.25:
        # many recordings are cut tightly and filled up with digital silence
        scene[int(samples * rng.uniform(0.2, 1.0)) :] = 0
    scene = level(scene, peak=10 ** rng.uniform(-1.5, 0))
    return (scene, sources) if return_sources else scene


def write_wav(path: Path, wav: Sound, rate: int) -> None:
    """Write a sound in 16 bits."""
    soundfile.write(path, wav, rate, subtype="PCM_16", format="WAV")


# Helpers


def complete(folder: Path, settings: dict) -> None:
    """Write what a folder lacks of its clips."""
    rate = settings["sample_rate"]
    manifest = folder / MANIFEST
    before = json.loads(manifest.read_text()) if manifest.is_file() else {}
    if before != settings:
        # clips of other settings must not be taken for these
        for kind in before.get("kinds", []):
            for path in (folder / kind).glob(f"{kind}_*.wav"):
                path.unlink()
        write_json(manifest, settings)
    missing = [
        (path, kind, number)
        for kind in KINDS
        for number in range(settings["clips_per_class"])
        if not (path := folder / kind / f"{kind}_{number:03d}.wav").is_file()
    ]
    for path, kind, number in progress_bar(missing, desc="sounds"):
        place = [*KINDS].index(kind)
        rng = np.random.default_rng([settings["seed"], place, number])
        wav = labelled_sound(kind, rng, rate)
        with whole(path) as partial:
            write_wav(partial, wav, rate)
