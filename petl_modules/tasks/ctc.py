"""A sequence of symbols per clip, by connectionist temporal classification."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.decoders.ctc import ctc_greedy_decode

from petl_modules.data.units import BLANK
from petl_modules.errors import UserError
from petl_modules.tasks.base import lengths
from petl_modules.tasks.sequence import SequenceTask

# Scores `(batch, steps, symbols)` and valid steps `(batch,)`, of `CTCHead`
CTCOutput = tuple[torch.Tensor, torch.Tensor]


class CTC(SequenceTask):
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
    target = "symbols"

    def __init__(self, labels: list[str], metric: str) -> None:
        if labels[0] != BLANK:
            raise UserError(f"The first symbol must be {BLANK}, not {labels[0]}.")
        self.labels, self.metric = list(labels), metric

    def add_targets(self, dataset: DynamicItemDataset) -> None:
        """Give a data set the item that `loss` reads, `(symbols,)`: the places of an
        entry's units, which are parted by spaces.

        Raises
        ------
        UserError
            For a symbol that is not known.
        """
        index = {label: i for i, label in enumerate(self.labels)}
        for key, entry in dataset.data.items():
            for symbol in entry["units"].split():
                if symbol not in index:
                    raise UserError(f"The symbol {symbol} of {key} is not known.")

        def places(units: str) -> torch.Tensor:
            symbols = [index[symbol] for symbol in units.split()]
            return torch.tensor(symbols, dtype=torch.long)

        dataset.add_dynamic_item(places, takes="units", provides=self.target)

    def fits(self, entry: dict[str, Any], steps: int) -> bool:
        """Whether a clip of so many steps can spell its units: one step a symbol, and a
        blank between equal ones."""
        symbols = entry["units"].split()
        doubled = sum(a == b for a, b in pairwise(symbols))
        return 0 < len(symbols) + doubled <= steps

    def loss(self, predictions: CTCOutput, batch: PaddedBatch) -> torch.Tensor:
        """CTC loss per symbol; predictions are those of `CTCHead`."""
        logits, counts = predictions
        symbols, spoken = batch.symbols.data, lengths(batch.symbols)
        with torch.autocast(logits.device.type, enabled=False):
            log_probabilities = logits.float().log_softmax(-1).transpose(0, 1)
            return F.ctc_loss(
                log_probabilities, symbols, counts, spoken, zero_infinity=True
            )

    def collect(self, predictions: CTCOutput, batch: PaddedBatch) -> None:
        """Keep the hypotheses of a batch."""
        logits, counts = predictions
        symbols, spoken = batch.symbols.data.tolist(), lengths(batch.symbols).tolist()
        truths = [row[:n] for row, n in zip(symbols, spoken, strict=True)]
        self.stats.append(
            batch.id,
            heard(logits, counts, self.labels),
            [spelt(truth, self.labels) for truth in truths],
        )


def heard(
    logits: torch.Tensor, counts: torch.Tensor, labels: Sequence[str]
) -> list[list[str]]:
    """What is heard in clips: the best symbol of each step, repeats and blanks
    collapsed.

    Arguments
    ---------
    logits : torch.Tensor
        `(batch, steps, symbols)`.
    counts : torch.Tensor
        Valid steps, `(batch,)`.
    labels : list of str
        The symbols, the blank first.

    Returns
    -------
    list of list of str
    """
    guesses = ctc_greedy_decode(logits.float(), counts / logits.shape[1], blank_id=0)
    return [spelt(guess, labels) for guess in guesses]


def spelt(indices: Sequence[int], labels: Sequence[str]) -> list[str]:
    """Indices to symbols."""
    return [labels[index] for index in indices]
