"""How near synthesised speech is to a recording of the same text."""

import numpy as np
from scipy.fft import dct
from scipy.spatial.distance import cdist

COEFFICIENTS = 13


def mel_cepstral_distortion(
    mel: np.ndarray, other: np.ndarray
) -> tuple[float, np.ndarray]:
    """Mel-cepstral distortion (Kubichek, 1993) of two log-mel spectrograms.

    The cepstra are `c_k = 2/N sum_n x_n cos(pi k (n + 1/2) / N)` of the N natural
    log-amplitudes x of a frame, k = 1 ... 13: without c_0, loudness does not count. The
    distance of two frames is `10 / ln 10 * sqrt(2 sum_k (c_k - c'_k)^2)` dB, which is
    the root mean square over mel bins of the smoothed spectra's difference in dB; it
    is averaged over the pairs of a dynamic time warping.

    Arguments
    ---------
    mel, other : numpy.ndarray
        `(frames, n_mels)`, natural logarithms of amplitudes.

    Returns
    -------
    distortion : float
        dB.
    pairs : numpy.ndarray
        `(pairs, 2)`: the frames that were compared.
    """
    distances = 10 / np.log(10) * np.sqrt(2) * cdist(cepstra(mel), cepstra(other))
    pairs = time_warping(distances)
    return float(distances[pairs[:, 0], pairs[:, 1]].mean()), pairs


def cepstra(mel: np.ndarray) -> np.ndarray:
    """Mel-cepstra `(frames, 13)`, as above."""
    mel = np.asarray(mel, dtype=np.float64)
    return dct(mel, type=2, axis=1)[:, 1 : COEFFICIENTS + 1] / mel.shape[1]


def time_warping(distances: np.ndarray) -> np.ndarray:
    """The pairs of frames of least summed distance from the first pair to the last, by
    steps of one frame in either or both; `(pairs, 2)`.

    Arguments
    ---------
    distances : numpy.ndarray
        `(frames, other frames)`.

    Example
    -------
    >>> time_warping(np.array([[0, 9, 9], [0, 9, 9], [9, 0, 0]])).tolist()
    [[0, 0], [1, 0], [2, 1], [2, 2]]
    """
    rows, columns = distances.shape
    sums = np.full((rows + 1, columns + 1), np.inf)
    sums[0, 0] = 0.0
    # all cells of a diagonal at once: each hangs on the two diagonals before alone
    for diagonal in range(rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        before = np.minimum(np.minimum(sums[i, j], sums[i, j + 1]), sums[i + 1, j])
        sums[i + 1, j + 1] = distances[i, j] + before
    i, j = rows, columns
    pairs = [(i - 1, j - 1)]
    while (i, j) != (1, 1):
        steps = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        i, j = min(steps, key=lambda step: sums[step])
        pairs.append((i - 1, j - 1))
    return np.array(pairs[::-1])


def f0_error(f0: np.ndarray, other: np.ndarray, pairs: np.ndarray) -> tuple[float, int]:
    """Root mean square difference in Hz over the pairs of frames that are voiced in
    both, and the number of these; F0 is 0 where unvoiced."""
    a, b = f0[pairs[:, 0]], other[pairs[:, 1]]
    voiced = (a > 0) & (b > 0)
    if not voiced.any():
        return 0.0, 0
    return float(np.sqrt(np.mean((a - b)[voiced] ** 2))), int(voiced.sum())
