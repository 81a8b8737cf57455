"""Whether two recordings are of one speaker: speaker verification."""

import csv
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.nnet.losses import AdditiveAngularMargin

from petl_modules.core.transfer import to_device
from petl_modules.errors import UserError, one_of
from petl_modules.files import write_figure, write_text
from petl_modules.kinds import Range
from petl_modules.tasks.base import Task
from petl_modules.tasks.heads import COSINE_SCALE
from petl_modules.tasks.pictures import histograms

METRICS = ("eer", "min_dcf")
Metric = Literal["eer", "min_dcf"]
Margin = Annotated[float, Range(0, 1.5)]  # radians
SCORES = "scores.csv"
P_TARGET = 0.01  # how likely one speaker is, where errors have a cost
NOBODY = -1  # the index of a speaker of whom nothing is learnt
PAIRS = 2**16  # of embeddings that are compared at once

# Embeddings `(batch, size)` and cosines `(batch, classes)`, of `SpeakerHead`
Heard = tuple[torch.Tensor, torch.Tensor]


class Verification(Task):
    """Whether two clips are of one speaker, whom training never heard.

    Training tells its own speakers apart, by cosines with an additive angular margin
    (Deng et al., arXiv 1801.07698; for speakers 1906.07317). Trials are judged by the
    cosine of two clips' embeddings. Held-out clips are of other speakers, and have no
    loss.

    Arguments
    ---------
    labels : list of str
        The speakers of training, in the order of their indices.
    margin : float
        Radians by which a clip must be nearer to its speaker than to others.
    metric : str
        What the best epoch has least of.
    """

    name = "verification"
    target = "label_index"
    cuts = True  # a voice is heard in its clip's beginning too
    held_out_loss = False

    def __init__(
        self, labels: list[str], margin: Margin = 0.2, metric: Metric = "eer"
    ) -> None:
        self.labels = list(labels)
        self.metric = one_of("metric", metric, METRICS)
        self.with_margin = AdditiveAngularMargin(margin, COSINE_SCALE)
        self.trials: dict[str, list[tuple[str, int]]] = {}  # by their first clip
        self.threshold = 0.0

    def add_targets(self, dataset: DynamicItemDataset) -> None:
        """Give a data set the item that `loss` reads, and take up its trials; those
        with a clip that is not in it are left out.

        Raises
        ------
        UserError
            If trials of one kind alone are left.
        """
        index = {label: i for i, label in enumerate(self.labels)}
        trials = {
            key: [(other, same) for other, same in own if other in dataset.data]
            for key, entry in dataset.data.items()
            if (own := entry.get("trials"))
        }
        kinds = {same for own in trials.values() for _, same in own}
        if trials and len(kinds) < 2:
            raise UserError(
                "The trials whose clips can be read are all of one kind: an error rate "
                "needs some of one speaker, and some of two."
            )
        self.trials |= trials
        speakers = {
            key: index.get(entry.get("label"), NOBODY)
            for key, entry in dataset.data.items()
        }
        dataset.add_dynamic_item(speakers.get, takes="id", provides=self.target)

    def loss(self, heard: Heard, batch: PaddedBatch) -> torch.Tensor:
        """Cross-entropy of cosines with an additive angular margin, the mean over
        clips; nothing for those of speakers that do not train."""
        _, cosines = heard
        labels = to_device(batch.label_index, cosines.device)
        own = labels.unsqueeze(1) == torch.arange(
            len(self.labels), device=labels.device
        )
        logits = self.with_margin(cosines, own.float())
        loss = F.cross_entropy(logits, labels, ignore_index=NOBODY, reduction="sum")
        return loss / len(labels)

    def right(self, heard: Heard, batch: PaddedBatch) -> torch.Tensor:
        """Clips that are nearest to their own speaker."""
        _, cosines = heard
        labels = to_device(batch.label_index, cosines.device)
        return (cosines.detach().argmax(-1) == labels).sum()

    def start(self, final: bool = False) -> None:
        """Forget what was collected; `final` after training."""
        del final
        self.ids: list[str] = []
        self.embeddings: list[torch.Tensor] = []

    def collect(self, heard: Heard, batch: PaddedBatch) -> None:
        """Keep the embeddings of a batch.

        Raises
        ------
        UserError
            For one that is not finite.
        """
        embeddings = F.normalize(heard[0].float()).cpu()
        for key, finite in zip(batch.id, embeddings.isfinite().all(1), strict=True):
            if not finite:
                raise UserError(
                    f"The embedding of the clip {key} is not finite (NaN or infinite): "
                    "lower lr or max_grad_norm, or look at this clip."
                )
        self.ids += batch.id
        self.embeddings.append(embeddings)

    def judged(self) -> tuple[list[tuple[int, str, str]], np.ndarray, np.ndarray]:
        """The trials of what was collected, whether each is of one speaker, and its
        cosine."""
        place = {key: i for i, key in enumerate(self.ids)}
        trials = [
            (same, key, other)
            for key in self.ids
            for other, same in self.trials.get(key, ())
        ]
        vectors = torch.cat(self.embeddings)
        pairs = torch.tensor([(place[one], place[other]) for _, one, other in trials])
        cosines = [
            (vectors[first] * vectors[second]).sum(1)
            for first, second in (part.T for part in pairs.split(PAIRS))
        ]
        same = np.array([same for same, *_ in trials], bool)
        return trials, same, torch.cat(cosines).numpy()

    def metrics(self) -> dict[str, float]:
        """The equal error rate, a fraction, and the least cost of detection."""
        _, same, scores = self.judged()
        rate, _ = equal_error_rate(same, scores)
        return {"eer": rate, "min_dcf": min_dcf(same, scores)}

    def decide(self) -> None:
        """Choose the score from which on two clips are said to be of one speaker: that
        of the equal error rate."""
        _, same, scores = self.judged()
        _, self.threshold = equal_error_rate(same, scores)

    def facts(self) -> dict[str, Any]:
        """The threshold."""
        return {"threshold": self.threshold}

    def error(self, metrics: dict[str, float], loss: float) -> float:
        """What a better epoch makes smaller; among equals the other metric decides."""
        del loss
        return metrics[self.metric] + 1e-6 * sum(metrics[name] for name in METRICS)

    def write(self, folder: Path) -> None:
        """scores.csv of the trials, in their order."""
        table = StringIO()
        writer = csv.writer(table)
        writer.writerow(["same", "first", "second", "score"])
        trials, _, scores = self.judged()
        for trial, score in zip(trials, scores, strict=True):
            writer.writerow([*trial, f"{score:.6f}"])
        write_text(folder / SCORES, table.getvalue())

    def draw(self, folder: Path, show: Callable[[str, Figure], None]) -> None:
        """scores.png: the scores of one speaker and of two."""
        _, same, scores = self.judged()
        kinds = {"one speaker": scores[same], "two speakers": scores[~same]}
        figure = histograms(kinds, "cosine", self.threshold)
        write_figure(folder / "scores.png", figure, dpi=120)
        show("scores", figure)
        pyplot.close(figure)


# Helpers


def equal_error_rate(same: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The rate at which as many trials of one speaker are refused as of two taken, the
    mean of both where they come closest, and the threshold from which on scores are
    taken.

    SpeechBrain's `EER` gives the same, in a time that grows by the trials' square.

    Arguments
    ---------
    same : numpy.ndarray
        `(trials,)`, 1 for one speaker and 0 for two; both are there.
    scores : numpy.ndarray
        `(trials,)`.

    Example
    -------
    >>> equal_error_rate(np.array([1, 1, 0, 0]), np.array([0.75, 0.5, 0.25, 0.0]))
    (0.0, 0.375)
    """
    taken, refused, cuts = error_rates(same, scores)
    place = int(np.abs(taken - refused).argmin())
    below = max(place - 1, 0)  # in the middle, as far from both sides as can be
    threshold = (float(cuts[place]) + float(cuts[below])) / 2
    return float(taken[place] + refused[place]) / 2, threshold


def min_dcf(same: np.ndarray, scores: np.ndarray, p_target: float = P_TARGET) -> float:
    """The least cost of detection over all thresholds (NIST's), where both errors cost
    the same: 1 is that of the better of two answers that hear nothing. It is
    SpeechBrain's `minDCF` over `min(p_target, 1 - p_target)`.

    Arguments
    ---------
    same, scores
        As of `equal_error_rate`.
    p_target : float
        How likely one speaker is.
    """
    taken, refused, _ = error_rates(same, scores)
    cost = p_target * refused + (1 - p_target) * taken
    return float(cost.min()) / min(p_target, 1 - p_target)


def error_rates(
    same: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of trials of two speakers those that are taken, of one speaker those that are
    refused, and the least score that is taken; from all taken to none."""
    taken, right, cuts = roc_curve(same, scores, drop_intermediate=False)
    cuts[0] = cuts[1]  # not infinite
    return taken[::-1], 1 - right[::-1], cuts[::-1]
