"""Sounds in time and in a room."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from petl_modules.embedded.filters import Sound, convolved
from petl_modules.embedded.signals import coloured_noise, decay, unit

Source = Callable[[Generator, int, int], Sound]  # of (rng, samples, rate)


def repeated(rng: Generator, event: Source, n: int, rate: int) -> Sound:
    """An event once, in a steady rhythm, in bursts or at random, each time a little
    different (a new draw) or always the same."""
    spacing = rng.choice(
        ["once", "steady", "random", "burst"], p=[0.2, 0.35, 0.25, 0.2]
    )
    gap = np.exp(rng.uniform(np.log(0.12), np.log(1.5))) * rate
    if spacing == "once":
        starts = [rng.uniform(0, 0.7) * n]
    elif spacing == "steady":
        starts = np.arange(rng.uniform(0, gap), n, gap)
    elif spacing == "random":
        starts = rng.uniform(0, n, max(1, rng.poisson(n / gap / 2)))
    else:
        starts = rng.uniform(0, 0.7) * n + gap / 2 * np.arange(rng.integers(2, 6))
    sound = np.zeros(n, np.float32)
    same = rng.random() < 0.6
    one = event(rng, n, rate)
    for start in starts:
        start = int(start)
        if not same and rng.random() < 0.5:
            one = event(rng, n, rate)
        if start < n:
            piece = one[: n - start]
            loudness = 10 ** (rng.uniform(-8, 0) / 20)
            sound[start : start + len(piece)] += unit(piece) * loudness
    return sound


def scattered(
    rng: Generator, event: Source, n: int, rate: int, per_second: float
) -> Sound:
    """Many instances of a few draws of an event, at random times."""
    few = [unit(event(rng, n, rate)) for _ in range(6)]
    sound = np.zeros(n, np.float32)
    for start in rng.integers(0, n, 1 + rng.poisson(per_second * n / rate)):
        piece = few[rng.integers(6)][: n - start]
        sound[start : start + len(piece)] += piece * rng.uniform(0.1, 1)
    return sound


def reverberate(rng: Generator, wav: Sound, rate: int) -> Sound:
    """A room: exponentially decaying noise, 0.1 to 1.2 s long."""
    n = int(np.exp(rng.uniform(np.log(0.1), np.log(1.2))) * rate)
    tail = coloured_noise(rng, n, slope=rng.uniform(-1.5, 0)) * decay(n, 6.9)
    wet = convolved(wav, tail)
    return unit(wav) + unit(wet) * 10 ** (rng.uniform(-20, 3) / 20)
