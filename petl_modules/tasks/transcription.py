"""The text of a clip, by a backbone that writes text."""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from transformers.models.whisper.english_normalizer import (
    BasicTextNormalizer,
    EnglishTextNormalizer,
)

from petl_modules.core.masking import valid
from petl_modules.errors import UserError
from petl_modules.kinds import PositiveInt, Probability
from petl_modules.tasks.base import lengths, padded
from petl_modules.tasks.heads import SpeechTask
from petl_modules.tasks.sequence import SequenceTask

logger = logging.getLogger(__name__)

NO_TOKEN = -100


class Transcription(SequenceTask):
    """The text of a clip: cross-entropy of each next token given those before it, and
    word errors of the text that the backbone writes.

    Words are compared after the normalisation of Whisper's evaluation: that for English
    where English is written, the basic one otherwise.

    Arguments
    ---------
    labels : None
        There are no classes.
    backbone : petl_modules.backbones.writing.Writer
    language : str or None
        The language of a checkpoint that knows several, such as en.
    speech_task : str
        Whether speech is written in its own language or in English.
    num_beams : int
        Width of the search for the best text; 1 takes the best token of each step.
    label_smoothing : float
        The part of a token's weight that is spread over all tokens.

    Raises
    ------
    UserError
        For a language that the backbone does not know.
    """

    name = "transcription"
    target = "numbers"
    metric = "word_error_rate"

    def __init__(
        self,
        labels: None,
        backbone: Any,
        language: str | None,
        speech_task: SpeechTask,
        num_beams: PositiveInt,
        label_smoothing: Probability = 0.0,
    ) -> None:
        del labels
        backbone.refuse_language(language)
        self.backbone, self.label_smoothing = backbone, label_smoothing
        self.spoken = {"language": language, "speech_task": speech_task}
        self.num_beams = num_beams
        english = not backbone.multilingual or speech_task == "translate"
        english = english or language.lower() in ("en", "english")
        self.normalized = normalizer(backbone.tokenizer, english)

    def add_targets(self, dataset: DynamicItemDataset) -> None:
        """Give a data set the item that `loss` reads: the tokens of an entry's text,
        `(length,)`.

        Raises
        ------
        UserError
            For a text that is too long for the decoder.
        """

        def numbers(text: str) -> torch.Tensor:
            return self.backbone.numbers(text, **self.spoken)

        room = self.backbone.text_room
        for key, entry in dataset.data.items():
            if (length := len(numbers(entry["text"]))) > room:
                raise UserError(
                    f"The text of {key} is too long: {length} tokens, where the "
                    f"decoder has room for {room}."
                )
        dataset.add_dynamic_item(numbers, takes="text", provides=self.target)

    def fits(self, entry: dict, steps: int) -> bool:
        """Whether a clip of so many steps is heard whole, as its text needs."""
        del entry
        room = self.backbone.capacity()
        return room is None or steps <= self.backbone.steps(room)

    def inputs(self, batch: PaddedBatch) -> dict[str, Any]:
        """Sound, and of the text every token but the last."""
        return {**super().inputs(batch), "text": batch.numbers.data[:, :-1]}

    def loss(self, written: Any, batch: PaddedBatch) -> torch.Tensor:
        """Cross-entropy per token; `written` is the backbone's."""
        targets, counts = padded(batch.numbers)
        spoken = valid(counts - 1, targets.shape[1] - 1)
        return F.cross_entropy(
            written.logits.float().flatten(0, 1),
            targets[:, 1:].masked_fill(~spoken, NO_TOKEN).flatten(),
            ignore_index=NO_TOKEN,
            label_smoothing=self.label_smoothing,
        )

    def weight(self, batch: PaddedBatch) -> int:
        """How much a batch's loss counts in the mean of a split: by its tokens."""
        return int((lengths(batch.numbers) - 1).sum())

    def collect(self, written: Any, batch: PaddedBatch) -> None:
        """Let the backbone write, and keep the words of a batch."""
        texts = self.backbone.write(
            written.sound, written.counts, num_beams=self.num_beams, **self.spoken
        )
        rows = zip(*padded(batch.numbers), strict=True)
        truths = self.backbone.spelt([row[:length] for row, length in rows])
        self.stats.append(
            batch.id,
            [self.normalized(text).split() for text in texts],
            [self.normalized(truth).split() for truth in truths],
        )


def normalizer(
    tokenizer: Any, english: bool
) -> BasicTextNormalizer | EnglishTextNormalizer:
    """The text normalisation of Whisper's evaluation."""
    if not english:
        return BasicTextNormalizer()
    spellings = getattr(tokenizer, "english_spelling_normalizer", None)
    if spellings is None:
        logger.warning(
            "The checkpoint has no normalizer.json: where British and American "
            "spellings differ, a word counts as an error."
        )
    return EnglishTextNormalizer(spellings or {})
