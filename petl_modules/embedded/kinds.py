"""The labelled kinds of sounds. Neighbours differ in one thing only: direction, rate,
order, rhythm, harmonics or formants."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.random import Generator

from petl_modules.embedded.arranging import Source
from petl_modules.embedded.events import knock
from petl_modules.embedded.filters import Sound, crossfaded, filtered, resonances
from petl_modules.embedded.signals import (
    constant_pitch,
    contour,
    decay,
    harmonic,
    sine,
    unit,
    white,
)


def chirp(rng: Generator, n: int, rate: int, up: bool) -> Sound:
    """A tone that glides up or down."""
    low = rng.uniform(250, 700)
    pitch = np.geomspace(low, low * rng.uniform(2.0, 4.0), n, dtype=np.float32)
    return harmonic(pitch if up else pitch[::-1], rng.uniform(0.0, 0.5), rate)


def tremolo(rng: Generator, n: int, rate: int, low: float, high: float) -> Sound:
    """A tone whose level swings at a rate between low and high Hz."""
    tone = harmonic(constant_pitch(rng, n, 300, 900), rng.uniform(0.2, 0.6), rate)
    modulation = sine(rng, n, rng.uniform(low, high), rate)
    return tone * (1 + rng.uniform(0.8, 1.0) * modulation)


def vibrato(rng: Generator, n: int, rate: int, low: float, high: float) -> Sound:
    """A tone whose pitch swings at a rate between low and high Hz."""
    pitch = constant_pitch(rng, n, 300, 900)
    bend = rng.uniform(0.05, 0.1) * sine(rng, n, rng.uniform(low, high), rate)
    return harmonic(pitch * (1 + bend), rng.uniform(0.2, 0.6), rate)


def harmonics(rng: Generator, n: int, rate: int, odd_only: bool) -> Sound:
    """A dying tone of all harmonics, or of the odd ones only."""
    pitch, richness = constant_pitch(rng, n, 150, 400), rng.uniform(0.7, 0.85)
    tone = harmonic(pitch, richness, rate)
    if odd_only:
        # a wave whose second half period is the first one upside down
        tone = tone - harmonic(pitch, richness, rate, shift=np.pi)
    return tone * decay(n, rng.uniform(0.5, 3.0))


def melody(rng: Generator, n: int, rate: int, steps: Sequence[int]) -> Sound:
    """Notes of one interval, in the order of their steps."""
    base, interval = rng.uniform(300, 700), rng.uniform(1.25, 1.6)
    richness, nepers = rng.uniform(0.1, 0.5), rng.uniform(1.0, 3.0)
    notes = [
        harmonic(np.full(n // len(steps), base * interval**step), richness, rate)
        for step in steps
    ]
    sound = np.concatenate([note * decay(len(note), nepers) for note in notes])
    return np.pad(sound, (0, n - len(sound)))


def rhythm(rng: Generator, n: int, rate: int, gaps: Sequence[float]) -> Sound:
    """Knocks whose gaps follow a pattern of relative lengths."""
    beat = rng.uniform(0.14, 0.2) * rate
    one = knock(rng, n, rate)
    sound = np.zeros(n + len(one), np.float32)
    position, index = 0.0, 0
    while position < n:
        start = int(position)
        sound[start : start + len(one)] += one * rng.uniform(0.7, 1.0)
        position += beat * gaps[index % len(gaps)] * rng.uniform(0.95, 1.05)
        index += 1
    return sound[:n]


def vowel(rng: Generator, n: int, rate: int, formants: Sequence[float]) -> Sound:
    """A voice with given formants (Hz)."""
    pitch = contour(rng, n, rng.uniform(90, 220), wander=0.1)
    scale = rng.uniform(0.9, 1.12)
    peaks = [(f * scale * rng.uniform(0.95, 1.05), 60 + 0.05 * f) for f in formants]
    return filtered(harmonic(pitch, 0.95, rate), resonances(peaks), rate)


def hiss(rng: Generator, n: int, rate: int, up: bool) -> Sound:
    """A band of noise that glides up or down."""
    source = white(rng, n)
    low = rng.uniform(500, 1000)
    centres = np.geomspace(low, low * rng.uniform(3.0, 6.0), 4)
    bands = [unit(filtered(source, resonances([(f, 0.3 * f)]), rate)) for f in centres]
    place = np.linspace(0, 3, n, dtype=np.float32)
    return crossfaded(bands if up else bands[::-1], place)


KINDS: dict[str, Source] = {
    "chirp_falling": partial(chirp, up=False),
    "chirp_rising": partial(chirp, up=True),
    "harmonics_all": partial(harmonics, odd_only=False),
    "harmonics_odd": partial(harmonics, odd_only=True),
    "hiss_falling": partial(hiss, up=False),
    "hiss_rising": partial(hiss, up=True),
    "knocks_even": partial(rhythm, gaps=(1,)),
    "knocks_paired": partial(rhythm, gaps=(0.5, 2)),
    "melody_falling": partial(melody, steps=(2, 1, 0)),
    "melody_rising": partial(melody, steps=(0, 1, 2)),
    "tremolo_fast": partial(tremolo, low=9, high=14),
    "tremolo_slow": partial(tremolo, low=3, high=5),
    "vibrato_fast": partial(vibrato, low=9, high=12),
    "vibrato_slow": partial(vibrato, low=3, high=5),
    "vowel_a": partial(vowel, formants=(750, 1250, 2600)),
    "vowel_i": partial(vowel, formants=(300, 2300, 3000)),
}
