"""Sources of the unlabelled scenes that last as long as the scene: functions of (rng,
samples, rate)."""

import numpy as np
from numpy.random import Generator

from petl_modules.embedded.arranging import Source, scattered
from petl_modules.embedded.events import EVENTS
from petl_modules.embedded.filters import (
    Sound,
    convolved,
    crossfaded,
    filtered,
    random_response,
    resonances,
)
from petl_modules.embedded.signals import (
    coloured_noise,
    constant_pitch,
    contour,
    decay,
    harmonic,
    impulses,
    sine,
    smooth_random,
    unit,
    white,
)


def noise(rng: Generator, n: int, rate: int) -> Sound:
    """Steady coloured noise through a random equaliser."""
    steady = coloured_noise(rng, n, slope=rng.uniform(-2.5, 1.0))
    return filtered(steady, random_response(rng, depth=15.0), rate)


def waves(rng: Generator, n: int, rate: int) -> Sound:
    """Broad noise that swells and recedes over seconds, brighter when loud."""
    dull = coloured_noise(rng, n, slope=rng.uniform(-2.5, -1.5))
    bright = coloured_noise(rng, n, slope=rng.uniform(-0.8, 0.2))
    breath = (1 + sine(rng, n, rng.uniform(0.08, 0.6), rate)) / 2
    breath = breath ** rng.uniform(1, 4) * smooth_random(rng, n, 6, 0.5, 1.0)
    return unit(dull) * (0.2 + breath) + rng.uniform(0.2, 1.5) * unit(bright) * breath


def wind(rng: Generator, n: int, rate: int) -> Sound:
    """Noise through a resonance that wanders."""
    low, high = np.sort(np.exp(rng.uniform(np.log(100), np.log(3000), 2)))
    source = coloured_noise(rng, n, slope=-1.0)
    width = rng.uniform(0.05, 0.5)
    bands = [
        unit(filtered(source, resonances([(f, width * f)]), rate))
        for f in np.geomspace(low, high, 4)
    ]
    place = smooth_random(rng, n, rng.integers(3, 12), 0, 3)
    gust = smooth_random(rng, n, rng.integers(3, 12), 0.1, 1.0)
    return gust * crossfaded(bands, place)


def rain(rng: Generator, n: int, rate: int) -> Sound:
    """Dense drops over a hiss."""
    drops = impulses(rng, n, rng.uniform(100, 4000) / rate, rng.uniform(0.5, 1.5))
    centre = rng.uniform(800, 6000)
    drops = filtered(drops, resonances([(centre, centre * rng.uniform(0.2, 1))]), rate)
    hiss = coloured_noise(rng, n, slope=rng.uniform(-1.0, 0.5))
    return unit(drops) + unit(hiss) * rng.uniform(0.1, 1.5)


def crackle(rng: Generator, n: int, rate: int) -> Sound:
    """Sparse, uneven snaps over a rumble."""
    snaps = impulses(rng, n, rng.uniform(3, 60) / rate, rng.uniform(1.5, 3))
    kernel = rng.standard_normal(int(rng.uniform(0.001, 0.015) * rate) + 2)
    snaps = convolved(snaps, kernel * decay(len(kernel), 5))
    rumble = coloured_noise(rng, n, slope=rng.uniform(-3.0, -1.0))
    return unit(snaps) + unit(rumble) * 10 ** rng.uniform(-2, 0)


def engine(rng: Generator, n: int, rate: int) -> Sound:
    """Many harmonics of a low, unsteady pitch, and noise in step with it."""
    pitch = contour(rng, n, np.exp(rng.uniform(np.log(18), np.log(180))), wander=0.2)
    pitch = pitch * (1 + 0.02 * rng.uniform(0, 1) * white(rng, n))
    tone = harmonic(pitch, rng.uniform(0.8, 0.97), rate)
    stroke = np.clip(harmonic(pitch / rng.integers(1, 5), 0.7, rate), 0, None)
    hiss = coloured_noise(rng, n, slope=rng.uniform(-1.5, 0)) * stroke
    tone = filtered(tone, random_response(rng, depth=12.0), rate)
    return unit(tone) + unit(hiss) * rng.uniform(0.05, 1.5)


def rotor(rng: Generator, n: int, rate: int) -> Sound:
    """Thuds of low noise, 4 to 30 a second."""
    beat = contour(rng, n, np.exp(rng.uniform(np.log(4), np.log(30))), wander=0.05)
    pulse = np.clip(harmonic(beat, rng.uniform(0.3, 0.85), rate), 0, None)
    low = coloured_noise(rng, n, slope=rng.uniform(-3, -1))
    low = filtered(low, random_response(rng, depth=10.0), rate)
    bed = coloured_noise(rng, n, slope=rng.uniform(-2, -0.5))
    return unit(low * pulse) + unit(bed) * rng.uniform(0.02, 0.8)


def hum(rng: Generator, n: int, rate: int) -> Sound:
    """A steady tone of mains or machines."""
    pitch = np.full(n, rng.choice([50, 60, 100, 120, rng.uniform(40, 400)]), np.float32)
    return harmonic(pitch, rng.uniform(0.3, 0.95), rate)


def insects(rng: Generator, n: int, rate: int) -> Sound:
    """A buzzing carrier that is gated on and off."""
    carrier = constant_pitch(rng, n, 1500, 6500)
    buzz = harmonic(contour(rng, n, rng.uniform(15, 250), wander=0.1), 0.6, rate)
    gate = sine(rng, n, rng.uniform(0.5, 8), rate) > rng.uniform(-1.5, 0.7)
    return harmonic(carrier, 0.2, rate) * np.clip(buzz, 0, None) * (0.05 + gate)


def bubbles(rng: Generator, n: int, rate: int) -> Sound:
    """Drops, scattered."""
    return scattered(rng, EVENTS["drop"], n, rate, rng.uniform(4, 40))


def crowd(rng: Generator, n: int, rate: int) -> Sound:
    """Syllables, scattered."""
    return scattered(rng, EVENTS["syllable"], n, rate, rng.uniform(6, 15))


def drone(rng: Generator, n: int, rate: int) -> Sound:
    """A chord of steady tones that swell."""
    base = np.exp(rng.uniform(np.log(60), np.log(800)))
    ratios = rng.choice([1, 1.2, 1.25, 1.333, 1.5, 1.6, 2, 2.5, 3], rng.integers(1, 4))
    tones = [
        harmonic(contour(rng, n, base * ratio, wander=0.02), rng.uniform(0, 0.8), rate)
        for ratio in ratios
    ]
    return sum(tones) * smooth_random(rng, n, rng.integers(2, 20), 0.1, 1)


def siren(rng: Generator, n: int, rate: int) -> Sound:
    """A tone that swings or steps in pitch."""
    swing = sine(rng, n, np.exp(rng.uniform(np.log(0.2), np.log(8))), rate)
    if rng.random() < 0.4:
        swing = np.sign(swing)
    pitch = rng.uniform(400, 1500) * (1 + rng.uniform(0.1, 0.5) * swing)
    return harmonic(pitch, rng.uniform(0.1, 0.8), rate)


def saw(rng: Generator, n: int, rate: int) -> Sound:
    """A rough tone that races under load."""
    load = smooth_random(rng, n, rng.integers(2, 10), 0.6, 1.3)
    pitch = rng.uniform(60, 300) * load * (1 + 0.05 * white(rng, n))
    tone = harmonic(pitch, rng.uniform(0.85, 0.98), rate)
    tone = filtered(tone, random_response(rng, depth=15.0), rate)
    hiss = coloured_noise(rng, n, slope=rng.uniform(-1, 0.3))
    return unit(tone) + unit(hiss) * rng.uniform(0.1, 1.0) * load


TEXTURES: dict[str, Source] = {
    f.__name__: f
    for f in (noise, waves, wind, rain, crackle, engine, rotor, hum, insects)
    + (bubbles, crowd, drone, siren, saw)
}
