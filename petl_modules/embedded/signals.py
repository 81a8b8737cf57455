"""What sounds are made of, as `(samples,)` arrays: tones, noises, envelopes, levels."""

import numpy as np
from numpy.random import Generator
from scipy.fft import irfft, next_fast_len, rfft

from petl_modules.embedded.filters import Sound, filtered, vowel_response


def harmonic(pitch: Sound, richness: float, rate: int, shift: float = 0.0) -> Sound:
    """A tone of the given pitch contour (Hz) whose k-th harmonic has the amplitude
    `richness ** (k - 1)`, from the closed form of that sum. Harmonics close to half
    the sample rate are damped by lowering the richness."""
    pitch = np.asarray(pitch, np.float32)
    top = float(np.max(pitch))
    # at most 1 % left of the harmonic at half the sample rate
    richness = min(richness, 0.01 ** (top / (rate / 2)))
    phase = 2 * np.pi * np.cumsum(pitch, dtype=np.float64) / rate + shift
    cosine = np.cos(phase % (2 * np.pi), dtype=np.float64).astype(np.float32)
    if richness < 1e-3:
        return cosine
    denominator = 1 - 2 * richness * cosine + richness**2
    return (cosine - richness) / denominator


def voiced(
    rng: Generator, n: int, rate: int, pitch: float, bend: float, rough: float
) -> Sound:
    """A voice with formants, a pitch that rises and falls by `bend`, and roughness."""
    arc = 1 + bend * np.sin(np.pi * np.linspace(0, 1, n) ** rng.uniform(0.4, 2.0))
    track = contour(rng, n, pitch, wander=0.05) * arc
    if rng.random() < 0.5:
        track = track * (1 + 0.03 * sine(rng, n, rng.uniform(4, 9), rate))
    track = track * (1 + 0.1 * rough * rng.random() * white(rng, n))
    source = unit(harmonic(track, rng.uniform(0.8, 0.95), rate))
    source = source + rough * rng.random() * white(rng, n)
    return filtered(source, vowel_response(rng), rate) * hump(rng, n)


def modes(
    rng: Generator, n: int, rate: int, lowest: float, count: int, seconds: float
) -> Sound:
    """Damped inharmonic partials above `lowest` Hz."""
    partials = lowest * np.cumprod(np.r_[1, rng.uniform(1.1, 1.9, count - 1)])
    partials = partials[partials < 0.48 * rate]
    lengths = seconds * rng.uniform(0.4, 1.0, len(partials))
    return damped(rng, n, rate, partials, lengths)


def damped(rng: Generator, n: int, rate: int, partials: Sound, lengths: Sound) -> Sound:
    """Sum of exponentially damped sines (Hz, seconds)."""
    lengths = lengths[: len(partials)]
    amplitudes = rng.uniform(0.2, 1, len(partials))
    time = np.arange(n, dtype=np.float32) / rate
    sound = np.zeros(n, np.float32)
    for partial, length, amplitude in zip(partials, lengths, amplitudes, strict=True):
        span = min(n, int(7 * length * rate) + 1)
        swing = np.sin(2 * np.pi * np.float32(partial) * time[:span])
        sound[:span] += amplitude * swing * np.exp(-time[:span] / np.float32(length))
    return sound


def impulses(rng: Generator, n: int, density: float, exponent: float) -> Sound:
    """Random spikes, `density` per sample; a high exponent makes few of them loud."""
    spikes = np.zeros(n, np.float32)
    count = 1 + rng.poisson(density * n)
    strength = rng.pareto(4 / exponent, count) + 0.1
    spikes[rng.integers(0, n, count)] = np.minimum(strength, 50) * rng.choice(
        [-1, 1], count
    )
    return spikes


def white(rng: Generator, n: int) -> Sound:
    """White noise `(n,)` of variance one."""
    return rng.standard_normal(n, dtype=np.float32)


def coloured_noise(rng: Generator, n: int, slope: float) -> Sound:
    """Gaussian noise whose power spectrum goes as frequency ** slope."""
    size = next_fast_len(n, real=True)
    spectrum = rfft(white(rng, size))
    bins = np.arange(1, len(spectrum) + 1, dtype=np.float32)
    # flat below 1/800 of the band, where only rumble would be
    return irfft(spectrum * np.maximum(bins, size / 1600) ** (slope / 2), size)[:n]


def constant_pitch(rng: Generator, n: int, low: float, high: float) -> Sound:
    """A pitch (Hz) between low and high, for every sample."""
    pitch = np.exp(rng.uniform(np.log(low), np.log(high)))
    return np.full(n, pitch, np.float32)


def contour(rng: Generator, n: int, pitch: float, wander: float) -> Sound:
    """A smooth random pitch contour around `pitch` Hz."""
    return pitch * np.exp(smooth_random(rng, n, rng.integers(2, 6), -wander, wander))


def smooth_random(
    rng: Generator, n: int, points: int, low: float, high: float
) -> Sound:
    """A random curve through `points` values between low and high."""
    places = np.linspace(0, 1, max(2, points))
    values = rng.uniform(low, high, len(places))
    fine = np.linspace(0, 1, 64)
    smooth = np.interp(fine, places, values)
    smooth = np.convolve(np.pad(smooth, 4, "edge"), np.ones(9) / 9, "valid")
    return np.interp(np.linspace(0, 1, n), fine, smooth).astype(np.float32)


def sine(rng: Generator, n: int, frequency: float, rate: int) -> Sound:
    """A sine of random phase."""
    phase = 2 * np.pi * (frequency * np.arange(n) / rate + rng.random())
    return np.sin(phase).astype(np.float32)


def swell(rng: Generator, n: int) -> Sound:
    """A slow random level."""
    return smooth_random(rng, n, rng.integers(2, 8), 0.0, 1.0)


def decay(n: int, nepers: float) -> Sound:
    """An exponential decay by so many nepers."""
    return np.exp(-np.linspace(0, nepers, n, dtype=np.float32))


def hump(rng: Generator, n: int) -> Sound:
    """An envelope that rises to its peak and falls."""
    place = np.linspace(0, 1, n, dtype=np.float32)
    attack, release = rng.uniform(0.02, 0.4), rng.uniform(0.1, 0.6)
    rise = np.minimum(place / attack, 1)
    fall = np.minimum((1 - place) / release, 1)
    return rise * fall ** rng.uniform(0.5, 2)


def fade(n: int, ramp: int) -> Sound:
    """A level that rises at the start and falls at the end, in `ramp` samples each."""
    place = np.arange(n, dtype=np.float32)
    return np.clip(np.minimum(place, n - 1 - place) / max(1, ramp), 0, 1)


def unit(wav: Sound) -> Sound:
    """The sound scaled to an effective value of one; silence stays silence."""
    wav = np.asarray(wav, np.float32)
    return wav / max(float(np.sqrt(np.mean(wav * wav))), 1e-5)


def level(wav: Sound, peak: float) -> Sound:
    """A sound scaled to a peak."""
    wav = np.asarray(wav, np.float32)
    return wav * np.float32(peak / max(float(np.abs(wav).max()), 1e-5))
