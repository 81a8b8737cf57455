"""Word error rate of synthesised speech, as Whisper hears it."""

import re
from pathlib import Path

import torch
from speechbrain.utils.metric_stats import ErrorRateStats
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from petl_modules.data import resampler
from petl_modules.errors import UserError


class Recogniser:
    """Whisper, from a folder or hub id in transformers' layout.

    Arguments
    ---------
    source : str

    Raises
    ------
    UserError
        If it cannot be loaded.
    """

    def __init__(self, source):
        if Path(source).exists() and not Path(source).is_dir():
            raise UserError(f"asr={source} is no folder of a Whisper model.")
        try:
            self.processor = WhisperProcessor.from_pretrained(source)
            self.model = WhisperForConditionalGeneration.from_pretrained(source)
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"No Whisper model can be loaded from asr={source} ({reason})."
            ) from error
        self.model = self.model.float().eval()

    @torch.no_grad()
    def words(self, wav, rate):
        """A waveform `(samples,)` at `rate` Hz to a list of words."""
        target = self.processor.feature_extractor.sampling_rate
        wav = wav if rate == target else resampler(rate, target)(wav)
        inputs = self.processor(
            wav.numpy(), sampling_rate=target, return_tensors="pt"
        ).input_features
        tokens = self.model.generate(inputs)
        (text,) = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return words_of(text)


def words_of(text):
    """The words of a text, without case and punctuation.

    Example
    -------
    >>> words_of("It's A-one, he said.")
    ["it's", 'a', 'one', 'he', 'said']
    """
    return re.findall(r"[a-z0-9']+", text.lower().replace("\u2019", "'"))


def word_error_rate(references, hypotheses):
    """Insertions, deletions and substitutions by reference words, of lists of words."""
    stats = ErrorRateStats()
    stats.append([str(i) for i in range(len(references))], hypotheses, references)
    return stats.summarize("error_rate") / 100
