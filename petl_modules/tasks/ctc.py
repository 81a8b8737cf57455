"""A sequence of symbols per clip, by connectionist temporal classification."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from speechbrain.decoders.ctc import ctc_greedy_decode
from speechbrain.utils.metric_stats import ErrorRateStats

from petl_modules.errors import UserError
from petl_modules.tasks.base import Task

BLANK = "<blank>"


class CTC(Task):
    """Symbols, such as phones or characters, in the order in which they are heard.

    Lengths are those of the valid steps, never of padding. Hypotheses are the best
    symbol of each step, repeats and blanks collapsed.

    Arguments
    ---------
    labels : list of str
        The symbols, the blank first.
    metric : str
        What the error rate is called, such as phone_error_rate; a fraction.
    """

    name = "ctc"
    target = "units"
    cuts = False  # a text is that of the whole clip
    fitted = ("train",)

    def __init__(self, labels, metric):
        if labels[0] != BLANK:
            raise UserError(f"The first symbol must be {BLANK}, not {labels[0]}.")
        self.labels, self.metric = list(labels), metric

    def add_targets(self, dataset):
        """Give a data set the item that `loss` reads: `(symbols,)` of an entry's text,
        whose symbols are parted by spaces.

        Raises
        ------
        UserError
            For a symbol that is not known.
        """
        index = {label: i for i, label in enumerate(self.labels)}
        for key, entry in dataset.data.items():
            for symbol in entry["text"].split():
                if symbol not in index:
                    raise UserError(f"The symbol {symbol} of {key} is not known.")

        def units(text):
            return torch.tensor([index[symbol] for symbol in text.split()])

        dataset.add_dynamic_item(units, takes="text", provides=self.target)

    def fits(self, text, steps):
        """Whether a clip of so many steps can spell a text: one step a symbol, and a
        blank between equal ones."""
        symbols = text.split()
        doubled = sum(a == b for a, b in pairwise(symbols))
        return 0 < len(symbols) + doubled <= steps

    def loss(self, predictions, batch):
        """CTC loss per symbol; predictions are those of `CTCHead`."""
        logits, counts = predictions
        units, lengths = self._targets(batch)
        with torch.autocast(logits.device.type, enabled=False):
            log_probabilities = logits.float().log_softmax(-1).transpose(0, 1)
            return F.ctc_loss(
                log_probabilities, units, counts, lengths, zero_infinity=True
            )

    def start(self):
        """Forget what was collected."""
        self.stats = ErrorRateStats()

    def collect(self, predictions, batch):
        """Keep the hypotheses of a batch."""
        logits, counts = predictions
        relative = counts / logits.shape[1]
        guesses = ctc_greedy_decode(logits.float(), relative, blank_id=0)
        units, lengths = self._targets(batch)
        truths = [
            row[:n] for row, n in zip(units.tolist(), lengths.tolist(), strict=True)
        ]
        self.stats.append(
            batch.id,
            [self.spelt(guess) for guess in guesses],
            [self.spelt(truth) for truth in truths],
        )

    def metrics(self):
        """The error rate: insertions, deletions and substitutions by symbols."""
        return {self.metric: self.stats.summarize("error_rate") / 100}

    def error(self, metrics, loss):
        """What a better epoch makes smaller; among equals the loss decides."""
        return metrics[self.metric] + 1e-6 * min(loss, 1e3)

    def write(self, folder):
        """Alignments of what was collected, in SpeechBrain's format."""
        with open(folder / "alignments.txt", "w", encoding="utf-8") as stream:
            self.stats.write_stats(stream)

    def spelt(self, indices):
        """Indices to symbols."""
        return [self.labels[index] for index in indices]

    def _targets(self, batch):
        units, relative = batch.units
        lengths = (relative * units.shape[1]).round().long()
        return units, lengths
