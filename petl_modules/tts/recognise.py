"""Word error rate of synthesised English speech, as a recogniser hears it."""

from collections.abc import Sequence
from typing import Protocol

import torch
from speechbrain.utils.metric_stats import ErrorRateStats
from torch import Tensor
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from petl_modules.backbones import load_backbone
from petl_modules.data.reading import resampler
from petl_modules.errors import UserError
from petl_modules.tasks.transcription import normalizer

SPHINX, SPHINX_RATE = "pocketsphinx", 16000
EDGE = 0.25  # s of silence at either end, as a dictation has it


class Recogniser(Protocol):
    """What tells the words of a sound."""

    def heard(self, wav: Tensor, rate: int) -> list[str]:
        """The words of a waveform `(samples,)` at `rate` Hz, a list."""

    def words(self, text: str) -> list[str]:
        """The words of a text, normalised, a list."""


def load_recogniser(source: str) -> Recogniser:
    """Whisper from a folder or hub id, or pocketsphinx, whose package brings its model:
    a worse judge, that is there offline.

    Raises
    ------
    UserError
        If it cannot be loaded.
    """
    return Sphinx() if source == SPHINX else Whisper(source)


class Whisper:
    """Whisper with its decoder, and the text normalisation of its evaluation.

    Arguments
    ---------
    source : str
        Folder or hub id.

    Raises
    ------
    UserError
        If it cannot be loaded.
    """

    def __init__(self, source: str) -> None:
        try:
            self.backbone = load_backbone(source, decoder=True).eval()
            tokenizer = self.backbone.tokenizer
        except UserError as error:
            raise UserError(
                f"No Whisper can be loaded from asr={source}: {error}"
            ) from error
        self.normalized = normalizer(tokenizer, english=True)

    @torch.no_grad()
    def heard(self, wav: Tensor, rate: int) -> list[str]:
        """As of every recogniser."""
        wav = at(wav, rate, self.backbone.sample_rate)
        sound, counts = self.backbone(wav.unsqueeze(0)).in_time()
        language = "en" if self.backbone.multilingual else None
        (text,) = self.backbone.write(sound, counts, language=language)
        return self.words(text)

    def words(self, text: str) -> list[str]:
        """As of every recogniser."""
        return self.normalized(text).split()


class Sphinx:
    """CMU Sphinx with the model of U.S. English that its package brings.

    Raises
    ------
    UserError
        Without the package.
    """

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder  # optional
        except ImportError:
            raise UserError(
                "asr=pocketsphinx needs the package of that name: pip install "
                "pocketsphinx; or give Whisper's folder, or null for none."
            ) from None
        self.decoder = Decoder(samprate=SPHINX_RATE, loglevel="FATAL")
        self.normalized = EnglishTextNormalizer({})

    def heard(self, wav: Tensor, rate: int) -> list[str]:
        """As of every recogniser."""
        wav = at(wav, rate, SPHINX_RATE)
        edge = torch.zeros(round(EDGE * SPHINX_RATE))
        wav = torch.cat([edge, wav / wav.abs().max().clamp(min=1e-4), edge])
        self.decoder.start_utt()
        sound = (wav * 0.7 * 32767).short().numpy().tobytes()
        self.decoder.process_raw(sound, full_utt=True)
        self.decoder.end_utt()
        found = self.decoder.hyp()
        return self.words(found.hypstr if found else "")

    def words(self, text: str) -> list[str]:
        """As of every recogniser."""
        return self.normalized(text).split()


def at(wav: Tensor, rate: int, wanted: int) -> Tensor:
    """A waveform at another rate."""
    return wav if rate == wanted else resampler(rate, wanted)(wav)


def word_error_rate(
    references: Sequence[list[str]], hypotheses: Sequence[list[str]]
) -> float:
    """Insertions, deletions and substitutions by reference words, of lists of words."""
    stats = ErrorRateStats()
    stats.append([str(i) for i in range(len(references))], hypotheses, references)
    return stats.summarize("error_rate") / 100
