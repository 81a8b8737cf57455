"""How long each symbol of a text lasts in its recording, found before training.

Classical embedded training, as HTK, Kaldi and the Montreal Forced Aligner do it for
monophones: every symbol is a hidden Markov model of three states from left to right,
each a Gaussian of the cepstra; pauses may be skipped. It starts from texts that are
laid evenly over their clips and alternates the best path (Viterbi) with the Gaussians
of what lies on it. Cepstra are normalised for each speaker, so that the model of one
voice is where that of another can start.
"""

import json
import logging
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torchaudio.functional import compute_deltas
from torchaudio.transforms import MFCC

from petl_modules.console import progress_bar
from petl_modules.data import read_clip
from petl_modules.errors import UserError
from petl_modules.files import write_tensors
from petl_modules.tts.text import MARKS, PAUSE

logger = logging.getLogger(__name__)

STATES = 3  # of a symbol, which lasts as many looks at least
CEPSTRA = 13
WIDTH = 0.025  # s, of the analysis
DIAGONAL, FULL = 10, 6  # rounds of training with covariances of either kind
LIKE_NEW = 4  # rounds on a voice where another's model is known already
PRIOR = 30.0  # looks that the Gaussian which a state starts from counts for
EDGE = 0.06  # of a clip, taken for silence at either end at first
MOST = 800  # clips that the Gaussians learn from
BATCH = 64  # clips whose paths are sought together
SCALE = "scale."  # prefix of the speakers' means and deviations in the file
VERSION = 1  # of what is found: durations that another one found are not taken


@dataclass(frozen=True)
class Spoken:
    """A clip and its text.

    Attributes
    ----------
    wav, speaker : str
    symbols : tuple of str
        Of `petl_modules.tts.text.symbols_of`.
    """

    wav: str
    speaker: str
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Chain:
    """The states of a text from left to right.

    Attributes
    ----------
    rows : numpy.ndarray
        `(states,)`, numbers of their Gaussians.
    owners : numpy.ndarray
        `(states,)`, numbers of the symbols that they belong to.
    silent : numpy.ndarray
        `(states,)`, True in pauses, which may be skipped.
    symbols : int
        How many the text has.
    """

    rows: np.ndarray
    owners: np.ndarray
    silent: np.ndarray
    symbols: int


class ForcedAligner:
    """Gaussians of the symbols' states, and the paths that they find.

    Arguments
    ---------
    symbols : iterable of str
        All that texts may hold.
    sample_rate : int
        Hz.
    hop_length : int
        Samples from one frame of a spectrogram to the next; the aligner looks twice
        as often.
    """

    def __init__(
        self, symbols: Iterable[str], sample_rate: int, hop_length: int
    ) -> None:
        self.units = [PAUSE, *(s for s in symbols if not is_silent(s))]
        self.sample_rate, self.hop_length = sample_rate, hop_length
        width = round(WIDTH * sample_rate)
        sizes = {"n_fft": 2 ** math.ceil(math.log2(width)), "win_length": width}
        bands = {"hop_length": hop_length // 2, "n_mels": 40, "f_min": 60.0}
        self._mfcc = MFCC(sample_rate, CEPSTRA, melkwargs=sizes | bands)
        self.scales: dict[str, tuple[Tensor, Tensor]] = {}
        self.means = self.covariances = torch.empty(0)

    def fit(self, clips: Sequence[Spoken], progress: bool = True) -> None:
        """Learn the symbols from clips, or go on from what another voice has taught.

        Arguments
        ---------
        clips : sequence of Spoken
        progress : bool
        """
        if len(clips) > MOST:
            clips = random.Random(0).sample(list(clips), MOST)
        looks = self._looks(clips, progress)
        chains = [self._chain(clip) for clip in clips]
        if self.means.numel():
            prior, rounds = (self.means, self.covariances), [True] * LIKE_NEW
        else:
            prior = self._common(looks)
            paths = [evenly(c, len(x)) for c, x in zip(chains, looks, strict=True)]
            self._estimate(looks, chains, paths, prior, full=False)
            rounds = [False] * DIAGONAL + [True] * FULL
        shown = progress_bar(rounds, desc="alignment", shown=progress)
        for full in shown:
            paths, likelihood = self._paths(looks, chains)
            self._estimate(looks, chains, paths, prior, full)
        logger.info(
            "Forced alignment of %d clips: log-likelihood %.2f per look of %.0f ms.",
            len(clips),
            likelihood,
            500 * self.hop_length / self.sample_rate,
        )

    def durations(
        self, clips: Sequence[Spoken], progress: bool = True
    ) -> dict[str, Tensor]:
        """Frames of the spectrogram that each symbol of each clip lasts.

        Returns
        -------
        dict
            `{wav: (symbols,)}`, whole numbers whose sum is the number of frames,
            `samples // hop_length + 1`; a pause that is not made has 0.
        """
        looks = self._looks(clips, progress)
        chains = [self._chain(clip) for clip in clips]
        found = {}
        for clip, chain, path in zip(
            clips, chains, self._paths(looks, chains)[0], strict=True
        ):
            owners = chain.owners[path]
            ends = np.searchsorted(owners, np.arange(chain.symbols), "right")
            frames = (ends + 1) // 2  # a frame is at every other look
            found[clip.wav] = torch.from_numpy(np.diff(frames, prepend=0))
        return found

    def take(self, other: "ForcedAligner") -> None:
        """Know what another knows."""
        self.scales = other.scales
        self.means, self.covariances = other.means, other.covariances

    def key(self) -> list:
        """What the durations that it finds hang on, JSON-able."""
        sums = self.means.double().sum().item(), self.covariances.double().sum().item()
        return [self.sample_rate, self.hop_length, self.units, *sums, VERSION]

    def save(self, path: Path) -> None:
        """Write a file that `load_aligner` reads."""
        said = {
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "symbols": self.units[1:],
        }
        tensors = {"means": self.means, "covariances": self.covariances}
        for speaker, scale in self.scales.items():
            tensors[SCALE + speaker] = torch.stack(scale)
        write_tensors(path, tensors, {"aligner": json.dumps(said)})

    def _looks(self, clips: Sequence[Spoken], progress: bool) -> list[Tensor]:
        """Cepstra with first and second differences, `(looks, 39)` of every clip, of
        mean 0 and variance 1 for each speaker."""
        found, by_speaker = [], {}
        for clip in progress_bar(clips, desc="cepstra", shown=progress):
            cepstra = self._mfcc(read_clip(clip.wav, self.sample_rate))
            slopes = compute_deltas(cepstra)
            found.append(torch.cat([cepstra, slopes, compute_deltas(slopes)]).T)
            by_speaker.setdefault(clip.speaker, []).append(found[-1])
        for speaker in by_speaker.keys() - self.scales.keys():
            std, mean = torch.std_mean(torch.cat(by_speaker[speaker]), 0)
            self.scales[speaker] = mean, std.clamp(min=1e-5)
        scales = [self.scales[clip.speaker] for clip in clips]
        return [(x - m) / s for x, (m, s) in zip(found, scales, strict=True)]

    def _chain(self, clip: Spoken) -> Chain:
        """The states of a clip's text; pauses and marks in a row are one pause, which
        belongs to the first mark."""
        owners, silent, symbols = [], [], clip.symbols
        for i, symbol in enumerate(symbols):
            if not is_silent(symbol):
                owners.append(i)
                silent.append(False)
            elif not (silent and silent[-1]):
                owners.append(i)
                silent.append(True)
            elif symbols[owners[-1]] == PAUSE:
                owners[-1] = i
        numbers = {unit: i for i, unit in enumerate(self.units)}
        names = [
            PAUSE if s else symbols[i] for i, s in zip(owners, silent, strict=True)
        ]
        first = STATES * np.array([numbers[name] for name in names])[:, None]
        sounds = ~np.array(silent)[:, None]  # the states of a pause are alike
        rows = first + sounds * np.arange(STATES)
        return Chain(
            rows.ravel(),
            np.repeat(owners, STATES),
            np.repeat(silent, STATES),
            len(symbols),
        )

    def _common(self, looks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """One Gaussian for all states, whose covariance is diagonal."""
        rows, size = STATES * len(self.units), looks[0].shape[1]
        mean, variance = torch.zeros(size), torch.ones(size)
        return mean.expand(rows, -1), torch.diag(variance).expand(rows, -1, -1)

    def _estimate(
        self,
        looks: list[Tensor],
        chains: list[Chain],
        paths: list[np.ndarray],
        prior: tuple[Tensor, Tensor],
        full: bool,
    ) -> None:
        """The Gaussians of what lies on the paths, drawn to `prior`."""
        everything = torch.cat(looks)
        rows = [chain.rows[path] for chain, path in zip(chains, paths, strict=True)]
        rows = torch.from_numpy(np.concatenate(rows))
        means, covariances = (part.clone() for part in prior)
        for row in rows.unique().tolist():
            own = everything[rows == row]
            weight = len(own) + PRIOR
            mean = (own.sum(0) + PRIOR * prior[0][row]) / weight
            shifted = own - mean
            scatter = shifted.T @ shifted
            off = (prior[0][row] - mean).outer(prior[0][row] - mean)
            covariance = (scatter + PRIOR * (prior[1][row] + off)) / weight
            means[row] = mean
            covariances[row] = covariance if full else torch.diag(covariance.diag())
        self.means, self.covariances = means, covariances

    def _paths(
        self, looks: list[Tensor], chains: list[Chain]
    ) -> tuple[list[np.ndarray], float]:
        """The best path of every clip, `(looks,)` numbers of its states, and the mean
        log-likelihood of a look on them."""
        size = self.means.shape[1]
        whiten = torch.linalg.inv(torch.linalg.cholesky(self.covariances))
        offset = torch.einsum("rij,rj->ri", whiten, self.means)
        scale = whiten.diagonal(dim1=1, dim2=2).log().sum(1)
        scale = scale - size / 2 * math.log(2 * math.pi)
        order = sorted(range(len(looks)), key=lambda i: len(looks[i]))
        paths, total = [None] * len(looks), 0.0
        for start in range(0, len(order), BATCH):
            chosen, scores = order[start : start + BATCH], []
            for i in chosen:
                rows, back = np.unique(chains[i].rows, return_inverse=True)
                white = looks[i] @ whiten[rows].flatten(0, 1).T
                white = white.unflatten(1, (len(rows), size)) - offset[rows]
                logs = scale[rows] - white.square().sum(2) / 2
                scores.append(logs.numpy()[:, back])
            for i, (path, likelihood) in zip(
                chosen, best_paths(scores, [chains[i] for i in chosen]), strict=True
            ):
                paths[i] = path
                total += likelihood
        return paths, total / sum(map(len, looks))


def load_aligner(path: Path) -> ForcedAligner:
    """The aligner of a base's folder.

    Raises
    ------
    UserError
        If it is not there or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            said = json.loads(file.metadata()["aligner"])
            aligner = ForcedAligner(**said)
            aligner.means = file.get_tensor("means")
            aligner.covariances = file.get_tensor("covariances")
            for name in file.keys():  # noqa: SIM118
                if name.startswith(SCALE):
                    scale = tuple(file.get_tensor(name))
                    aligner.scales[name.removeprefix(SCALE)] = scale
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The alignment of the base, {path}, cannot be read ({error})."
        ) from None
    return aligner


def least_frames(symbols: Sequence[str]) -> int:
    """Frames of the spectrogram that the fastest speech of a text takes."""
    sounds = sum(not is_silent(symbol) for symbol in symbols)
    return (STATES * sounds) // 2 + 1


def is_silent(symbol: str) -> bool:
    """Whether a symbol is a pause, or a mark, at which one may be."""
    return symbol == PAUSE or symbol in MARKS


def evenly(chain: Chain, looks: int) -> np.ndarray:
    """A first path: silence at the ends, the sounds spread evenly, no other pauses."""
    edge = max(STATES, round(EDGE * looks))
    places = np.flatnonzero(~chain.silent)
    spread = np.linspace(0, len(places), max(1, looks - 2 * edge), endpoint=False)
    inner = places[spread.astype(int)]
    first = np.full(edge, 0 if chain.silent[0] else places[0])
    last = np.full(edge, len(chain.rows) - 1 if chain.silent[-1] else places[-1])
    return np.concatenate([first, inner, last])[:looks]


def best_paths(
    scores: list[np.ndarray], chains: list[Chain]
) -> list[tuple[np.ndarray, float]]:
    """Viterbi's paths of several clips at once.

    Arguments
    ---------
    scores : list of numpy.ndarray
        `(looks, states)`, log-likelihoods.
    chains : list of Chain

    Returns
    -------
    list of (numpy.ndarray, float)
        For each clip the states `(looks,)` and the sum of their scores.
    """
    longest = max(map(len, scores))
    width = max(len(chain.rows) for chain in chains)
    padded = np.full((longest, len(scores), width), -np.inf, np.float32)
    jumps = np.full((len(scores), width), -1)
    for i, (score, chain) in enumerate(zip(scores, chains, strict=True)):
        padded[: len(score), i, : score.shape[1]] = score
        # the first state after a pause may follow the last one before it
        after = np.flatnonzero(chain.silent[:-1] & ~chain.silent[1:]) + 1
        jumps[i, after] = after - STATES - 1
    can_jump = jumps >= 0
    best = np.full((len(scores), width), -np.inf, np.float32)
    for i, chain in enumerate(chains):
        best[i, 0] = padded[0, i, 0]
        if chain.silent[0]:
            best[i, STATES] = padded[0, i, STATES]
    steps = np.zeros(padded.shape, np.int16)
    places, kept = np.arange(width), [None] * len(scores)
    for look in range(longest):
        if look:
            before = np.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=-np.inf)
            jumped = np.take_along_axis(best, np.where(can_jump, jumps, 0), 1)
            jumped = np.where(can_jump, jumped, -np.inf)
            step = np.where(before > best, places - 1, places)
            best = np.maximum(best, before)
            step = np.where(jumped > best, jumps, step)
            best = np.maximum(best, jumped) + padded[look]
            steps[look] = step
        for i, score in enumerate(scores):
            if len(score) == look + 1:
                kept[i] = best[i].copy()
    found = []
    for i, (score, chain) in enumerate(zip(scores, chains, strict=True)):
        ends = [len(chain.rows) - 1]
        if chain.silent[-1]:
            ends.append(len(chain.rows) - STATES - 1)
        state = max(ends, key=kept[i].__getitem__)
        likelihood, path = float(kept[i][state]), np.empty(len(score), np.int64)
        for look in range(len(score) - 1, -1, -1):
            path[look] = state
            state = steps[look, i, state]
        found.append((path, likelihood))
    return found
