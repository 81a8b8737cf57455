"""What tasks share: the parts that most of them leave as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.train_logger import TensorboardLogger, TrainLogger

from petl_modules.core.transfer import to_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Task:
    """A task: what a batch gives the model, the loss, the metrics.

    A subclass has `add_targets`, `loss`, `start`, `collect`, `metrics`, `error` and
    `write`; `fits` too, if it has `fitted` splits.

    Attributes
    ----------
    name : str
    sound : tuple of str
        Items of a data set that the model reads.
    target : str
        The item that the loss reads.
    cuts : bool
        Whether a target holds for a part of its clip too.
    fitted : tuple of str
        Splits without the clips that are too long, or too short for their text.
    held_out_loss : bool
        Whether the loss of clips that do not train says anything.
    """

    name: str
    target: str
    sound: tuple[str, ...] = ("sig",)
    cuts = True
    fitted: tuple[str, ...] = ()
    held_out_loss = True

    def add_targets(self, dataset: DynamicItemDataset) -> None:
        """Give a data set the item that `loss` reads; a UserError for what is none."""
        raise NotImplementedError

    def inputs(self, batch: PaddedBatch) -> dict[str, Any]:
        """What the model is called with, by name."""
        return {"wavs": batch.sig.data, "wav_lens": batch.sig.lengths}

    def weight(self, batch: PaddedBatch) -> int:
        """How much a batch's loss counts in the mean of a split: by its clips."""
        return len(batch.id)

    def right(self, predictions: Any, batch: PaddedBatch) -> torch.Tensor | None:
        """How many clips of a batch in training are told right, a number where the
        predictions are; None where that is no matter of whole clips."""
        del predictions, batch
        return None

    def draws(self, dataset: DynamicItemDataset) -> list[float] | None:
        """How often each clip of a data set is drawn for training, relative to the
        others; None where each comes once an epoch."""
        del dataset
        return None

    def augment(self, batch: PaddedBatch) -> None:
        """Change a batch of sound, in place, before it trains."""

    def loss(self, predictions: Any, batch: PaddedBatch) -> torch.Tensor:
        """The loss of what the head predicts, a scalar."""
        raise NotImplementedError

    def start(self, final: bool = False) -> None:
        """Forget what was collected; `final` after training."""
        raise NotImplementedError

    def collect(self, predictions: Any, batch: PaddedBatch) -> None:
        """Keep what the head predicts for a batch."""
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        """What was collected, judged."""
        raise NotImplementedError

    def decide(self) -> None:
        """Choose by what was collected of the validation set, at the end of training,
        what the test set and the adapter's user are given."""

    def facts(self) -> dict[str, Any]:
        """What was chosen, for the adapter's json."""
        return {}

    def error(self, metrics: dict[str, float], loss: float) -> float:
        """What a better epoch makes smaller."""
        raise NotImplementedError

    def loggers(
        self, folder: Path, tensorboard: TensorboardLogger
    ) -> list[TrainLogger]:
        """More of SpeechBrain's train loggers, called after every epoch.

        Arguments
        ---------
        folder : Path
            Of the run.
        tensorboard : speechbrain.utils.train_logger.TensorboardLogger
        """
        del folder, tensorboard
        return []

    def write(self, folder: Path) -> None:
        """Write what was collected into a run's folder."""
        raise NotImplementedError

    def draw(self, folder: Path, show: Callable[[str, "Figure"], None]) -> None:
        """Draw what was collected, once all else of a run is there.

        Arguments
        ---------
        folder : Path
            Of the run.
        show : callable
            Takes a picture's name and figure, for TensorBoard.
        """


def padded(data: PaddedData) -> tuple[torch.Tensor, torch.Tensor]:
    """SpeechBrain's padded data as a tensor `(batch, steps, ...)` and the numbers of
    valid steps `(batch,)` on its device."""
    return data.data, to_device(lengths(data), data.data.device)


def lengths(data: PaddedData) -> torch.Tensor:
    """The numbers of valid steps of SpeechBrain's padded data, `(batch,)`, where its
    relative lengths are: in a `petl_modules.data.batch.Batch`, the CPU."""
    return (data.lengths * data.data.shape[1]).round().long()
