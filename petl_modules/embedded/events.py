"""Short sources of the unlabelled scenes: functions of (rng, samples, rate), whose
sounds are as long as they are, and are repeated in a scene."""

import numpy as np
from numpy.random import Generator

from petl_modules.embedded.arranging import Source
from petl_modules.embedded.filters import (
    Sound,
    filtered,
    random_response,
    resonances,
    vowel_response,
)
from petl_modules.embedded.signals import (
    coloured_noise,
    constant_pitch,
    contour,
    damped,
    decay,
    fade,
    harmonic,
    hump,
    modes,
    sine,
    unit,
    voiced,
    white,
)


def click(rng: Generator, n: int, rate: int) -> Sound:
    """A few milliseconds of noise."""
    n = int(rng.uniform(0.0005, 0.01) * rate) + 4
    return white(rng, n) * decay(n, rng.uniform(2, 8))


def tick(rng: Generator, n: int, rate: int) -> Sound:
    """A small, bright, damped knock, sometimes double."""
    n = int(rng.uniform(0.02, 0.12) * rate)
    sound = modes(rng, n, rate, rng.uniform(1000, 6000), 3, rng.uniform(0.002, 0.02))
    if rng.random() < 0.4:
        sound += np.roll(sound, int(rng.uniform(0.1, 0.5) * n)) * rng.uniform(0.2, 0.8)
    return sound


def knock(rng: Generator, n: int, rate: int) -> Sound:
    """A few damped modes, and the thump of what hit them."""
    n = int(rng.uniform(0.05, 0.3) * rate)
    low = np.exp(rng.uniform(np.log(80), np.log(1500)))
    sound = modes(rng, n, rate, low, rng.integers(2, 7), rng.uniform(0.005, 0.05))
    thump = white(rng, n) * decay(n, rng.uniform(20, 80))
    return unit(sound) + unit(thump) * rng.uniform(0, 0.5)


def bell(rng: Generator, n: int, rate: int) -> Sound:
    """Inharmonic partials that ring for long."""
    n = int(rng.uniform(0.3, 2.0) * rate)
    low = np.exp(rng.uniform(np.log(200), np.log(3000)))
    return modes(rng, n, rate, low, rng.integers(3, 10), rng.uniform(0.1, 0.8))


def drum(rng: Generator, n: int, rate: int) -> Sound:
    """A falling tone and the rattle of a snare."""
    n = int(rng.uniform(0.1, 0.6) * rate)
    fall = 1 + rng.uniform(0.5, 3) * decay(n, rng.uniform(5, 30))
    skin = harmonic(rng.uniform(40, 250) * fall, 0.2, rate) * decay(n, 6)
    snare = coloured_noise(rng, n, slope=0.0) * decay(n, rng.uniform(4, 30))
    return unit(skin) * rng.uniform(0, 1) + unit(snare) * rng.uniform(0, 1)


def drop(rng: Generator, n: int, rate: int) -> Sound:
    """A short tone that rises."""
    n = int(rng.uniform(0.03, 0.2) * rate)
    rise = np.linspace(1, rng.uniform(1.0, 1.8), n, dtype=np.float32)
    return harmonic(rng.uniform(300, 3000) * rise, 0.05, rate) * decay(n, 6)


def bark(rng: Generator, n: int, rate: int) -> Sound:
    """A short rough cry: pitch up and down, formants, noise."""
    n = int(rng.uniform(0.08, 0.45) * rate)
    return voiced(rng, n, rate, rng.uniform(120, 900), rng.uniform(0.1, 0.5), rough=0.6)


def cry(rng: Generator, n: int, rate: int) -> Sound:
    """A long cry with an arc of pitch."""
    n = int(rng.uniform(0.4, 1.8) * rate)
    return voiced(
        rng, n, rate, rng.uniform(250, 900), rng.uniform(0.05, 0.3), rough=0.1
    )


def crow(rng: Generator, n: int, rate: int) -> Sound:
    """Several cries tied together, the last one long."""
    pitch = rng.uniform(350, 1100)
    parts = []
    for seconds in (*rng.uniform(0.08, 0.3, rng.integers(1, 4)), rng.uniform(0.4, 1.2)):
        bend, pitch = rng.uniform(0.05, 0.4), pitch * rng.uniform(0.9, 1.25)
        parts.append(voiced(rng, int(seconds * rate), rate, pitch, bend, rough=0.3))
    return np.concatenate(parts)


def whistle(rng: Generator, n: int, rate: int) -> Sound:
    """A bird's: nearly pure, any contour, sometimes trilled."""
    n = int(rng.uniform(0.05, 0.9) * rate)
    pitch = contour(rng, n, rng.uniform(1000, 6000), wander=rng.uniform(0.02, 0.6))
    if rng.random() < 0.4:
        pitch = pitch * (1 + 0.15 * sine(rng, n, rng.uniform(8, 60), rate))
    return harmonic(pitch, rng.uniform(0, 0.25), rate) * hump(rng, n)


def syllable(rng: Generator, n: int, rate: int) -> Sound:
    """A consonant's noise and a vowel that glides between two sets of formants."""
    n = int(rng.uniform(0.1, 0.4) * rate)
    pitch = contour(rng, n, rng.uniform(80, 320), wander=0.2)
    source = harmonic(pitch, 0.95, rate) + 0.03 * white(rng, n)
    ends = [unit(filtered(source, vowel_response(rng), rate)) for _ in range(2)]
    glide = np.linspace(0, 1, n, dtype=np.float32)
    sound = (ends[0] * (1 - glide) + ends[1] * glide) * hump(rng, n)
    if rng.random() < 0.6:
        k = int(rng.uniform(0.02, 0.15) * rate)
        centre = rng.uniform(1500, 7000)
        hiss = filtered(white(rng, k), resonances([(centre, 0.3 * centre)]), rate)
        hiss = unit(hiss) * hump(rng, k) * rng.uniform(0.1, 1)
        sound = np.concatenate([hiss, sound] if rng.random() < 0.5 else [sound, hiss])
    return sound


def phrase(rng: Generator, n: int, rate: int) -> Sound:
    """Two to seven syllables of one voice, some with pauses."""
    parts = []
    for _ in range(rng.integers(2, 8)):
        parts += [syllable(rng, n, rate), np.zeros(int(rng.exponential(0.05) * rate))]
    return np.concatenate(parts)


def whoosh(rng: Generator, n: int, rate: int) -> Sound:
    """Noise that glides from one band to another."""
    n = int(rng.uniform(0.15, 1.2) * rate)
    source = coloured_noise(rng, n, slope=-0.5)
    ends = np.exp(rng.uniform(np.log(200), np.log(6000), 2))
    bands = [unit(filtered(source, resonances([(f, 0.4 * f)]), rate)) for f in ends]
    glide = np.linspace(0, 1, n, dtype=np.float32)
    return (bands[0] * (1 - glide) + bands[1] * glide) * hump(rng, n)


def sneeze(rng: Generator, n: int, rate: int) -> Sound:
    """A drawn breath, a stop, a burst of noise with or without voice."""
    breath = int(rng.uniform(0.05, 0.5) * rate)
    burst = int(rng.uniform(0.1, 0.5) * rate)
    inhale = coloured_noise(rng, breath, slope=-0.5) * np.linspace(0, 1, breath) ** 2
    blast = coloured_noise(rng, burst, slope=rng.uniform(-1, 0.5))
    blast = filtered(blast, random_response(rng, depth=12.0), rate)
    blast = unit(blast) * decay(burst, rng.uniform(3, 12))
    if rng.random() < 0.6:
        voice = voiced(rng, burst, rate, rng.uniform(120, 450), 0.2, rough=0.3)
        blast = blast * rng.uniform(0.3, 1) + unit(voice) * decay(burst, 4)
    stop = np.zeros(int(rng.uniform(0, 0.06) * rate))
    return np.concatenate([unit(inhale) * rng.uniform(0, 0.4), stop, blast])


def beep(rng: Generator, n: int, rate: int) -> Sound:
    """One or two steady tones."""
    n = int(rng.uniform(0.05, 0.6) * rate)
    tones = [
        harmonic(constant_pitch(rng, n, 300, 4000), rng.uniform(0, 0.7), rate)
        for _ in range(rng.integers(1, 3))
    ]
    return sum(tones) * fade(n, rate // 200)


def pluck(rng: Generator, n: int, rate: int) -> Sound:
    """A string: harmonics that die, high ones first."""
    n = int(rng.uniform(0.2, 1.2) * rate)
    low = rng.uniform(80, 800)
    partials = low * np.arange(1, 9)
    lengths = rng.uniform(0.1, 0.6) / np.arange(1, 9) ** 0.7
    return damped(rng, n, rate, partials[partials < 7500], lengths)


def shatter(rng: Generator, n: int, rate: int) -> Sound:
    """A cloud of small bright modes after a bang."""
    n = int(rng.uniform(0.3, 1.2) * rate)
    sound = white(rng, n) * decay(n, 60)
    piece = modes(rng, n // 3, rate, rng.uniform(1500, 5000), 6, 0.03)
    for start in (rng.beta(1, 3, rng.integers(5, 25)) * (n - len(piece))).astype(int):
        sound[start : start + len(piece)] += piece * rng.uniform(0.1, 1)
    return sound


def scrape(rng: Generator, n: int, rate: int) -> Sound:
    """Stick and slip: a resonant body driven by a rough pulse train."""
    n = int(rng.uniform(0.2, 1.2) * rate)
    pulses = harmonic(contour(rng, n, rng.uniform(30, 500), 0.4), 0.95, rate)
    pulses = pulses * (1 + 0.5 * white(rng, n))
    centres = np.exp(rng.uniform(np.log(300), np.log(6000), 3))
    return filtered(pulses, resonances([(f, 0.05 * f) for f in centres]), rate) * hump(
        rng, n
    )


EVENTS: dict[str, Source] = {
    f.__name__: f
    for f in (click, tick, knock, bell, drum, drop, bark, cry, crow, whistle, syllable)
    + (phrase, whoosh, sneeze, beep, pluck, shatter, scrape)
}
