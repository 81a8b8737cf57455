"""Word error rate of synthesised English speech, as Whisper hears it."""

from collections.abc import Sequence

import torch
from speechbrain.utils.metric_stats import ErrorRateStats
from torch import Tensor

from petl_modules.backbones import load_backbone
from petl_modules.data.reading import resampler
from petl_modules.errors import UserError
from petl_modules.tasks.transcription import normalizer


class Recogniser:
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
        """The words of a waveform `(samples,)` at `rate` Hz, a list."""
        target = self.backbone.sample_rate
        wav = wav if rate == target else resampler(rate, target)(wav)
        sound, counts = self.backbone(wav.unsqueeze(0)).in_time()
        language = "en" if self.backbone.multilingual else None
        (text,) = self.backbone.write(sound, counts, language=language)
        return self.words(text)

    def words(self, text: str) -> list[str]:
        """The words of a text, normalised, a list."""
        return self.normalized(text).split()


def word_error_rate(
    references: Sequence[list[str]], hypotheses: Sequence[list[str]]
) -> float:
    """Insertions, deletions and substitutions by reference words, of lists of words."""
    stats = ErrorRateStats()
    stats.append([str(i) for i in range(len(references))], hypotheses, references)
    return stats.summarize("error_rate") / 100
