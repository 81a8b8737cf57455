"""One label per clip."""

import csv
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_fscore_support
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset

from petl_modules.core.transfer import to_device
from petl_modules.errors import UserError, one_of
from petl_modules.files import write_figure, write_text
from petl_modules.kinds import Probability, Range
from petl_modules.tasks.base import Task
from petl_modules.tasks.mixing import roll_and_mix
from petl_modules.tasks.pictures import confusion_matrix

PREDICTIONS = "predictions.csv"
METRICS = ("accuracy", "macro_f1", "weighted_f1", "unweighted_recall")
Metric = Literal["accuracy", "macro_f1", "weighted_f1", "unweighted_recall"]
Mixup = Annotated[float, Range(0, 100)]


class Classification(Task):
    """One label per clip.

    Arguments
    ---------
    labels : list of str
        The classes, in the order of their indices.
    label_smoothing : float
        The part of a label's weight that is spread over all classes.
    metric : str
        What the best epoch has most of.
    time_shift : bool
        Whether clips in training are rolled around by a random time; for sounds, not
        for words.
    mixup : float
        The parameter of the Beta distribution by which clips in training, and their
        labels, are mixed with one another; 0 for none.
    """

    name = "classification"
    target = "label_index"
    cuts = True  # a clip's label holds for its beginning too

    def __init__(
        self,
        labels: list[str],
        label_smoothing: Probability = 0.0,
        metric: Metric = "accuracy",
        time_shift: bool = False,
        mixup: Mixup = 0.0,
    ) -> None:
        self.labels = list(labels)
        self.label_smoothing = label_smoothing
        self.metric = one_of("metric", metric, METRICS)
        self.time_shift, self.mixup = time_shift, mixup

    def add_targets(self, dataset: DynamicItemDataset) -> None:
        """Give a data set the item that `loss` reads.

        Raises
        ------
        UserError
            If a clip has a label that is none of the classes.
        """
        index = {label: i for i, label in enumerate(self.labels)}
        for key, entry in dataset.data.items():
            if entry["label"] not in index:
                raise UserError(
                    f"The label {entry['label']} of the clip {key} is none of the "
                    f"classes: {', '.join(self.labels)}."
                )
        dataset.add_dynamic_item(index.get, takes="label", provides=self.target)

    def augment(self, batch: PaddedBatch) -> None:
        """Roll the clips of a batch around, and mix them and their labels."""

        def shares() -> torch.Tensor:
            sound = batch.sig.data
            labels = to_device(batch.label_index, sound.device)
            return F.one_hot(labels, len(self.labels)).to(sound)

        told = roll_and_mix(batch, self.time_shift, self.mixup, shares)
        if told is not None:
            batch.label_index = told

    def loss(self, logits: torch.Tensor, batch: PaddedBatch) -> torch.Tensor:
        """Cross-entropy; `logits` is `(batch, classes)`."""
        return F.cross_entropy(
            logits.float(),
            to_device(batch.label_index, logits.device),
            label_smoothing=self.label_smoothing,
        )

    def right(self, logits: torch.Tensor, batch: PaddedBatch) -> torch.Tensor:
        """Clips whose best class is their label, or the larger part of it."""
        labels = batch.label_index.to(logits.device)
        labels = labels if labels.ndim == 1 else labels.argmax(-1)
        return (logits.detach().argmax(-1) == labels).sum()

    def start(self, final: bool = False) -> None:
        """Forget what was collected; `final` after training."""
        del final
        self.rows = []

    def collect(self, logits: torch.Tensor, batch: PaddedBatch) -> None:
        """Keep the predictions of a batch."""
        probabilities = logits.float().softmax(-1).cpu()
        targets = batch.label_index.tolist()
        self.rows += zip(batch.id, targets, probabilities, strict=True)

    def metrics(self) -> dict[str, float]:
        """Fractions: accuracy, macro and weighted F1, unweighted average recall."""
        targets = np.array([target for _, target, _ in self.rows])
        guesses = torch.stack([p for _, _, p in self.rows]).argmax(-1).numpy()
        _, recalls, f1, clips = precision_recall_fscore_support(
            targets, guesses, average=None, zero_division=0.0
        )
        return {
            "accuracy": float(np.mean(targets == guesses)),
            "macro_f1": float(np.mean(f1)),
            "weighted_f1": float(np.average(f1, weights=clips)),
            "unweighted_recall": float(np.mean(recalls[clips > 0])),
        }

    def error(self, metrics: dict[str, float], loss: float) -> float:
        """What a better epoch makes smaller; among equals the loss decides."""
        return 1.0 - metrics[self.metric] + 1e-6 * min(loss, 1e3)

    def write(self, folder: Path) -> None:
        """predictions.csv of what was collected."""
        table = StringIO()
        writer = csv.writer(table)
        writer.writerow(["id", "label", "prediction", "probability"])
        for key, target, probabilities in self.rows:
            guess = int(probabilities.argmax())
            names = self.labels[target], self.labels[guess]
            writer.writerow([key, *names, f"{probabilities[guess]:.4f}"])
        write_text(folder / PREDICTIONS, table.getvalue())

    def draw(self, folder: Path, show: Callable[[str, Figure], None]) -> None:
        """confusion_matrix.png of what was collected."""
        figure = confusion_matrix(
            [target for _, target, _ in self.rows],
            [int(p.argmax()) for _, _, p in self.rows],
            range(len(self.labels)),
            self.labels,
        )
        write_figure(folder / "confusion_matrix.png", figure, dpi=120)
        show("confusion matrix", figure)
        pyplot.close(figure)
