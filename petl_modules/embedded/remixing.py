"""New clips out of old ones: at another speed, backwards, through another equaliser,
two at once."""

import numpy as np
from numpy.random import Generator

from petl_modules.embedded.filters import Sound, filtered, random_response
from petl_modules.embedded.signals import level, unit


def remixed(rng: Generator, one: Sound, other: Sound, rate: int) -> tuple[Sound, bool]:
    """A clip made of one, or of two that follow each other or sound at once.

    Arguments
    ---------
    rng : numpy.random.Generator
    one, other : numpy.ndarray
        `(samples,)` each.
    rate : int
        Hz.

    Returns
    -------
    clip : numpy.ndarray
        `(samples,)`.
    both : bool
        Whether something of the other is heard.
    """
    samples = len(one)
    first, second = changed(rng, one, rate), changed(rng, other, rate)
    both = len(first) < samples
    if both:
        first = np.concatenate([first, second])
        first = np.pad(first, (0, max(0, samples - len(first))))
    start = rng.integers(len(first) - samples + 1)
    clip = first[start : start + samples]
    if rng.random() < 0.4:
        second = np.pad(second, (0, max(0, samples - len(second))))[:samples]
        second = np.roll(second, rng.integers(samples))
        clip = unit(clip) + unit(second) * 10 ** (rng.uniform(-20, 0) / 20)
        both = True
    return level(clip, peak=10 ** rng.uniform(-1.5, 0)), both


def changed(rng: Generator, wav: Sound, rate: int) -> Sound:
    """A clip through a random equaliser, backwards, or 0.55 to 1.8 times as fast."""
    if rng.random() < 0.6:
        wav = filtered(wav, random_response(rng, depth=10.0), rate)
    if rng.random() < 0.15:
        wav = wav[::-1]
    if rng.random() < 0.6:
        speed = np.exp(rng.uniform(np.log(0.55), np.log(1.8)))
        places = np.arange(0, len(wav) - 1, speed)
        wav = np.interp(places, np.arange(len(wav)), wav).astype(np.float32)
    return wav
