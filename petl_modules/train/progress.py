"""What a person sees of training: on a terminal a bar, and everywhere one line an
epoch."""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta

from speechbrain.utils.distributed import if_main_process

from petl_modules.console import progress_bar

logger = logging.getLogger(__name__)


class Progress:
    """The bars and lines of one training.

    Arguments
    ---------
    metric : str
        What the epoch is chosen by.
    bars : bool
        Whether a terminal shows bars.
    lines : bool
        Whether every epoch gets a line.
    """

    def __init__(self, metric: str, bars: bool = True, lines: bool = True) -> None:
        self.metric, self.bars, self.lines = metric, bars, lines
        self.best: tuple[float, int, float] | None = None  # error, epoch, metric
        self.bar = progress_bar(total=0, shown=False)
        self.total, self.done = 0, 0
        self.began = self.epoch_began = time.monotonic()

    def begin(
        self,
        total: int,
        best: tuple[float, int, float] | None = None,
        opening: str = "",
    ) -> None:
        """Training begins, or goes on.

        Arguments
        ---------
        total : int
            Epochs, at most.
        best : tuple or None
            Error, epoch and metric of the best so far.
        opening : str
            The first line.
        """
        self.total, self.best, self.done = total, best, 0
        self.began = self.epoch_began = time.monotonic()
        if self.lines and opening:
            logger.info(opening)

    def start(self, stage: str, batches: int, done: int = 0) -> None:
        """A pass over data begins, of so many batches."""
        self.stop()
        shown = self.bars and if_main_process()
        self.bar = progress_bar(total=batches, initial=done, desc=stage, shown=shown)

    def step(self, loss: float | None = None) -> None:
        """One batch is done; `loss` is the mean so far."""
        if loss is not None:
            self.bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        self.bar.update()

    def stop(self) -> None:
        """The pass is over; a terminal forgets its bar."""
        self.bar.close()

    def name(self, epoch: int) -> str:
        """An epoch by its number and that of all."""
        return f"epoch {epoch:{len(str(self.total))}} of {self.total}"

    def epoch(
        self,
        epoch: int,
        train: Mapping[str, float] | None,
        valid: Mapping[str, float] | None = None,
        error: float = 0.0,
    ) -> None:
        """An epoch is over: one line.

        Arguments
        ---------
        epoch : int
            0 for the model as it starts.
        train, valid : dict or None
            Metrics, with the loss if there is one.
        error : float
            What a better epoch makes smaller.
        """
        self.stop()
        now = time.monotonic()
        seconds, self.epoch_began = now - self.epoch_began, now
        self.done += epoch > 0
        parts = [] if train is None else [f"loss {train['loss']:.4f}"]
        if valid is not None:
            parts += self._judged(epoch, valid, error)
        parts.append(f"{seconds:.1f} s")
        if epoch and epoch < self.total:
            rest = (now - self.began) / self.done * (self.total - epoch)
            parts.append(f"{timedelta(seconds=round(rest))} left")
        if self.lines:
            logger.info("%s: %s", self.name(epoch), ", ".join(parts))

    def _judged(
        self, epoch: int, valid: Mapping[str, float], error: float
    ) -> list[str]:
        """What validation said, and the best so far."""
        value = valid[self.metric]
        better = self.best is None or error < self.best[0]
        if self.best is None or better:
            self.best = error, epoch, value
        _, when, best = self.best
        shown = "best" if better else f"best {best:.4f} of epoch {when}"
        parts = [f"valid {self.metric} {value:.4f} ({shown})"]
        if self.metric != "loss" and "loss" in valid:
            parts.insert(0, f"valid loss {valid['loss']:.4f}")
        return parts
