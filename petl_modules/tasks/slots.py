"""Slots and intents of spoken commands, by connectionist temporal classification."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.edit_distance import accumulatable_wer_stats
from speechbrain.utils.metric_stats import ErrorRateStats

from petl_modules.kinds import PositiveInt
from petl_modules.tasks.ctc import CTCOutput
from petl_modules.tasks.recognition import SpeechRecognition
from petl_modules.tasks.sequence import write_alignments

Metric = Literal["slot_type_f1", "slot_value_cer", "intent_accuracy"]
BEGIN, END, INTENT = "<B-", "<E-", "<intent="


class SlotFilling(SpeechRecognition):
    """The words of a command with marks around the values of its slots, and a mark for
    its intent: `PLAY <B-artist> ABBA <E-artist> <intent=PlayMusic>`.

    Arguments
    ---------
    labels : list of str
        The symbols, the blank first.
    metric : str
        What chooses the epoch.
    beam_size : int or None
        Width of a beam search after training; null for the best symbols.
    language_model : str or None
        A file of n-grams of words in KenLM's formats (.arpa or binary), for the beam
        search.
    lm_weight : float
        The weight of the language model in the beam search.
    word_bonus : float
        What the beam search adds for every word.
    """

    name = "slot_filling"
    choices = ("slot_type_f1", "slot_value_cer", "intent_accuracy")

    def __init__(
        self,
        labels: list[str],
        metric: Metric = "slot_type_f1",
        beam_size: PositiveInt | None = None,
        language_model: str | None = None,
        lm_weight: float = 0.5,
        word_bonus: float = 1.5,
    ) -> None:
        super().__init__(
            labels, metric, beam_size, language_model, lm_weight, word_bonus
        )

    def start(self, final: bool = False) -> None:
        """Forget what was collected; `final` after training."""
        self.final, self.rows = final, []

    def collect(self, predictions: CTCOutput, batch: PaddedBatch) -> None:
        """Keep the texts of a batch."""
        guesses, truths = self.guesses(predictions), self.truths(batch)
        self.rows += zip(batch.id, guesses, truths, strict=True)

    def metrics(self) -> dict[str, float]:
        """SUPERB's metrics (arXiv 2105.01051), and the fraction of right intents."""
        _, guesses, truths = zip(*self.rows, strict=True)
        right = [intent(g) == intent(t) for g, t in zip(guesses, truths, strict=True)]
        return {
            "slot_type_f1": slot_type_f1(guesses, truths),
            "slot_value_cer": slot_value_cer(guesses, truths),
            "intent_accuracy": sum(right) / len(right),
        }

    def error(self, metrics: dict[str, float], loss: float) -> float:
        """What a better epoch makes smaller; among equals the loss decides."""
        value = metrics[self.metric]
        wrong = value if self.metric == "slot_value_cer" else 1 - value
        return wrong + 1e-6 * min(loss, 1e3)

    def write(self, folder: Path) -> None:
        """Alignments of words and marks, in SpeechBrain's format."""
        stats = ErrorRateStats()
        ids, guesses, truths = zip(*self.rows, strict=True)
        stats.append(ids, [g.split() for g in guesses], [t.split() for t in truths])
        write_alignments(folder / "wer.txt", stats)


def slots(text: str) -> dict[str, list[str]]:
    """The slots of a marked text, each from its first mark to the next that ends it.

    Returns
    -------
    dict
        `{type: [value, ...]}`, in the order of the text. Marks inside a value are no
        part of it; what is never ended, or empty, is no slot.

    Example
    -------
    >>> slots("PLAY <B-artist> AB BA <E-artist> IN <B-city> ROME")
    {'artist': ['AB BA']}
    """
    words, found, place = text.split(), {}, 0
    while place < len(words):
        word, place = words[place], place + 1
        if not word.startswith(BEGIN):
            continue
        kind = word[len(BEGIN) : -1]
        ends = [i for i in range(place + 1, len(words)) if words[i] == f"{END}{kind}>"]
        if ends:
            value = " ".join(w for w in words[place : ends[0]] if not w.startswith("<"))
            found.setdefault(kind, []).append(value)
            place = ends[0] + 1
    return found


def intent(text: str) -> str | None:
    """The first intent of a marked text, or None."""
    marks = [word for word in text.split() if word.startswith(INTENT)]
    return marks[0][len(INTENT) : -1] if marks else None


def slot_type_f1(guesses: Sequence[str], truths: Sequence[str]) -> float:
    """F1 of the types of an utterance's slots, each counted once, on average over
    utterances; 1 where there are none and none are found."""
    scores = []
    for guess, truth in zip(guesses, truths, strict=True):
        found, there = set(slots(guess)), set(slots(truth))
        kinds = len(found) + len(there)
        scores.append(2 * len(found & there) / kinds if kinds else 1.0)
    return sum(scores) / len(scores)


def slot_value_cer(guesses: Sequence[str], truths: Sequence[str]) -> float:
    """Character error rate of the values of the slots that are there, each against the
    nearest value found for its type, or nothing where there is none."""
    total = Counter()
    for guess, truth in zip(guesses, truths, strict=True):
        found = slots(guess)
        for kind, values in slots(truth).items():
            for value in values:
                rivals = [edits(value, rival) for rival in found.get(kind, [""])]
                total["edits"] += min(rivals)
                total["characters"] += len(value)
    return total["edits"] / max(total["characters"], 1)


def edits(truth: str, guess: str) -> int:
    """Insertions, deletions and substitutions that turn one text into the other."""
    stats = accumulatable_wer_stats([list(truth)], [list(guess)], Counter())
    return sum(stats[kind] for kind in ("insertions", "deletions", "substitutions"))
