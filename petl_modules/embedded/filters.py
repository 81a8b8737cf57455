"""Filters: functions from frequency (Hz) to gain, applied in the frequency domain."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

Sound = NDArray[np.float32]  # `(samples,)`
Response = Callable[[Sound], Sound]


def filtered(wav: Sound, response: Response, rate: int) -> Sound:
    """A sound through a response, by the FFT."""
    size = next_fast_len(len(wav), real=True)
    hertz = np.linspace(0, rate / 2, size // 2 + 1, dtype=np.float32)
    spectrum = rfft(np.asarray(wav, np.float32), size)
    return irfft(spectrum * response(hertz), size)[: len(wav)]


def convolved(wav: Sound, kernel: Sound) -> Sound:
    """Causal convolution, cut to the length of `wav`."""
    size = next_fast_len(len(wav) + len(kernel) - 1, real=True)
    kernel = np.asarray(kernel, np.float32)
    return irfft(rfft(wav, size) * rfft(kernel, size), size)[: len(wav)]


def crossfaded(bands: Sequence[Sound], place: Sound) -> Sound:
    """Of several sounds, at each sample, the one or two that `place` lies at."""
    return sum(b * np.clip(1 - abs(place - i), 0, 1) for i, b in enumerate(bands))


def resonances(peaks: Sequence[tuple[float, float]]) -> Response:
    """Response with a peak of the given (centre, bandwidth) each, all equally high."""

    def response(hertz: np.ndarray) -> np.ndarray:
        gain = np.zeros_like(hertz)
        for order, (centre, width) in enumerate(peaks):
            place = (hertz - centre) / np.float32(width)
            gain += 0.6**order / np.sqrt(1 + place * place)
        return gain

    return response


def vowel_response(rng: Generator) -> Response:
    """The formants of a random vowel."""
    scale = rng.uniform(0.8, 1.6)
    first, second = rng.uniform(250, 900), rng.uniform(800, 2600)
    formants = (first, max(second, first + 200), rng.uniform(2400, 3600))
    return resonances([(scale * f, 50 + 0.06 * f) for f in formants])


def random_response(rng: Generator, depth: float) -> Response:
    """A smooth random equaliser, up to `depth` dB up and down, over the log scale."""
    places = np.linspace(np.log(60), np.log(8000), 10)
    gains = rng.uniform(-depth, depth, 10)

    def response(hertz: np.ndarray) -> np.ndarray:
        decibels = np.interp(np.log(np.maximum(hertz, 1)), places, gains)
        return (10 ** (decibels / 20)).astype(np.float32)

    return response
