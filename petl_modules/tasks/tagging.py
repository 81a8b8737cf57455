"""Several labels per clip, or none: audio tagging."""

import csv
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    precision_recall_curve,
)
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from speechbrain.dataio.dataset import DynamicItemDataset

from petl_modules.core.transfer import to_device
from petl_modules.errors import UserError, one_of
from petl_modules.files import write_text
from petl_modules.kinds import Probability
from petl_modules.tasks.base import Task
from petl_modules.tasks.classification import Mixup
from petl_modules.tasks.mixing import roll_and_mix

METRICS = ("mean_average_precision", "lwlrap", "macro_f1", "micro_f1")
Metric = Literal["mean_average_precision", "lwlrap", "macro_f1", "micro_f1"]
PREDICTIONS = "tags.csv"
EVEN = 0.5  # the threshold of a label that the validation set does not have


class Tagging(Task):
    """Each label is told by itself: by a sigmoid, whose binary cross-entropies a clip
    has the mean of.

    The threshold above which a label is given to a clip is each label's own: that with
    the best F1 on the validation set. It is saved with the adapter.

    Arguments
    ---------
    labels : list of str
        In the order of their indices.
    label_smoothing : float
        How far targets are from 0 and 1, towards even chances.
    metric : str
        What the best epoch has most of.
    balanced : bool
        Whether clips are drawn for training by their labels, rare ones as often as
        frequent ones: each clip by the sum over its labels of one by the label's clips.
    time_shift : bool
        Whether clips in training are rolled around by a random time.
    mixup : float
        The parameter of the Beta distribution by which clips in training, and their
        labels, are mixed with one another; 0 for none.
    """

    name = "tags"
    target = "tags"

    def __init__(
        self,
        labels: list[str],
        label_smoothing: Probability = 0.0,
        metric: Metric = "mean_average_precision",
        balanced: bool = False,
        time_shift: bool = False,
        mixup: Mixup = 0.0,
    ) -> None:
        self.labels = list(labels)
        self.label_smoothing, self.balanced = label_smoothing, balanced
        self.metric = one_of("metric", metric, METRICS)
        self.time_shift, self.mixup = time_shift, mixup
        self.thresholds = [EVEN] * len(self.labels)

    def add_targets(self, dataset: DynamicItemDataset) -> None:
        """Give a data set the item that `loss` reads: `(labels,)`, 1 for what a clip
        has, else 0.

        Raises
        ------
        UserError
            If a clip has a label that is none of those known.
        """
        index = {label: i for i, label in enumerate(self.labels)}
        for key, entry in dataset.data.items():
            if unknown := sorted(set(entry["labels"]) - set(index)):
                raise UserError(
                    f"The label {unknown[0]} of the clip {key} is none of those known: "
                    f"{', '.join(self.labels)}."
                )

        def tags(labels: list[str]) -> torch.Tensor:
            found = torch.zeros(len(index))
            found[[index[label] for label in labels]] = 1.0
            return found

        dataset.add_dynamic_item(tags, takes="labels", provides=self.target)

    def draws(self, dataset: DynamicItemDataset) -> list[float] | None:
        """How often each clip is drawn; one without labels as the most frequent."""
        if not self.balanced:
            return None
        clips = [dataset.data[key]["labels"] for key in dataset.data_ids]
        count = Counter(label for labels in clips for label in labels)
        least = 1 / max(count.values())
        return [max(least, sum(1 / count[x] for x in labels)) for labels in clips]

    def augment(self, batch: PaddedBatch) -> None:
        """Roll the clips of a batch around, and mix them and their labels."""
        told = roll_and_mix(
            batch, self.time_shift, self.mixup, lambda: targets_of(batch)
        )
        if told is not None:
            batch.tags = PaddedData(told, torch.ones(len(told)))

    def loss(self, logits: torch.Tensor, batch: PaddedBatch) -> torch.Tensor:
        """Binary cross-entropy, the mean over labels; `logits` is `(batch, labels)`."""
        tags = to_device(targets_of(batch), logits.device)
        tags = torch.lerp(tags, torch.full_like(tags, 0.5), self.label_smoothing)
        return F.binary_cross_entropy_with_logits(logits.float(), tags)

    def start(self, final: bool = False) -> None:
        """Forget what was collected; `final` after training."""
        del final
        self.rows: list[tuple[str, np.ndarray, np.ndarray]] = []

    def collect(self, logits: torch.Tensor, batch: PaddedBatch) -> None:
        """Keep the predictions of a batch."""
        chances = logits.float().sigmoid().cpu().numpy()
        tags = targets_of(batch).cpu().numpy()
        self.rows += zip(batch.id, tags, chances, strict=True)

    def metrics(self) -> dict[str, float]:
        """Fractions: mean average precision over the labels that there are, label
        weighted label-ranking average precision (as DCASE 2019's task 2), and F1 above
        the thresholds, macro and micro."""
        tags, chances = self.collected()
        there = tags.any(0)
        precisions = [
            average_precision_score(tags[:, i], chances[:, i])
            for i in np.flatnonzero(there)
        ]
        told = chances >= np.asarray(self.thresholds)
        return {
            "mean_average_precision": float(np.mean(precisions or [0.0])),
            "lwlrap": lwlrap(tags, chances),
            "macro_f1": float(np.mean(f1(tags, told, 0)[there]))
            if there.any()
            else 0.0,
            "micro_f1": float(f1(tags, told)),
        }

    def collected(self) -> tuple[np.ndarray, np.ndarray]:
        """What clips have and what is said of them, `(clips, labels)` each."""
        _, tags, chances = zip(*self.rows, strict=True)
        return np.stack(tags), np.stack(chances)

    def decide(self) -> None:
        """Choose each label's threshold: that with the best F1, in the middle between
        the scores on both sides of it."""
        tags, chances = self.collected()
        self.thresholds = [
            best_threshold(tags[:, i], chances[:, i]) for i in range(len(self.labels))
        ]

    def facts(self) -> dict[str, Any]:
        """The thresholds, in the order of the labels."""
        return {"thresholds": self.thresholds}

    def error(self, metrics: dict[str, float], loss: float) -> float:
        """What a better epoch makes smaller; among equals the loss decides."""
        return 1.0 - metrics[self.metric] + 1e-6 * min(loss, 1e3)

    def write(self, folder: Path) -> None:
        """tags.csv of what was collected: a row for each label that a clip has
        or is given."""
        table = StringIO()
        writer = csv.writer(table)
        writer.writerow(["id", "label", "has_it", "is_given_it", "probability"])
        for key, tags, chances in self.rows:
            for i, label in enumerate(self.labels):
                given = chances[i] >= self.thresholds[i]
                if tags[i] or given:
                    row = [key, label, int(tags[i]), int(given), f"{chances[i]:.4f}"]
                    writer.writerow(row)
        write_text(folder / PREDICTIONS, table.getvalue())


# Helpers


def targets_of(batch: PaddedBatch) -> torch.Tensor:
    """The targets of a batch, `(batch, labels)`."""
    return batch.tags if isinstance(batch.tags, torch.Tensor) else batch.tags.data


def lwlrap(tags: np.ndarray, chances: np.ndarray) -> float:
    """Label-weighted label-ranking average precision: of each label that a clip has,
    the share of labels ranked as high or higher that it has too, on average over all
    labels of all clips. Arrays are `(clips, labels)`."""
    weights = tags.sum(1)
    if not weights.any():
        return 0.0
    return float(
        label_ranking_average_precision_score(tags, chances, sample_weight=weights)
    )


def f1(tags: np.ndarray, told: np.ndarray, axis: int | None = None) -> Any:
    """F1 of all labels together, or with axis=0 of each; 0 where nothing is there and
    nothing told. Arrays are `(clips, labels)`."""
    right = (tags * told).sum(axis)
    return 2 * right / np.maximum(tags.sum(axis) + told.sum(axis), 1)


def best_threshold(tags: np.ndarray, chances: np.ndarray) -> float:
    """The threshold of a label with the best F1, `tags` and `chances` `(clips,)`.

    Example
    -------
    >>> best_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.25, 0.75, 0.9]))
    0.5
    """
    if not tags.any():
        return EVEN
    precision, recall, cuts = precision_recall_curve(tags, chances)
    scores = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    cut = cuts[int(scores[:-1].argmax())]
    below = chances[chances < cut]
    lower = below.max() if below.size else 0.0
    return (float(cut) + float(lower)) / 2
