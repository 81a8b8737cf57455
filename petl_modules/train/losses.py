"""The losses of training steps, looked at one step late."""

import math
from collections.abc import Callable

import torch


class Losses:
    """The running mean of an epoch's losses.

    A loss is copied to the CPU while the device goes on, and read when the next step
    has been queued: to read it at once would leave the device idle in every step.

    Arguments
    ---------
    mean : float
        Of the steps before, where an epoch goes on.
    refuse : callable
        Called with the number of a step and the ids of its clips where its loss is not
        finite; raises.

    Attributes
    ----------
    mean : float
        Of the losses that have been looked at.
    """

    def __init__(self, mean: float, refuse: Callable[[int, list], None]) -> None:
        self.mean, self.refuse = mean, refuse
        self._waiting = None

    def add(self, loss: torch.Tensor, step: int, ids: list) -> None:
        """Note a step's loss, a scalar, and look at that of the step before; `step`
        counts from 1."""
        on_gpu = loss.device.type == "cuda"
        host = torch.empty((), dtype=loss.dtype, pin_memory=on_gpu)
        host.copy_(loss, non_blocking=True)
        arrived = None
        if on_gpu:
            arrived = torch.cuda.Event()
            arrived.record()
        self.look()
        self._waiting = host, arrived, step, ids

    def look(self) -> None:
        """Look at the last loss that was noted, and wait for it if need be."""
        if self._waiting is None:
            return
        host, arrived, step, ids = self._waiting
        self._waiting = None
        if arrived is not None:
            arrived.synchronize()
        self.note(host.tolist(), step, ids)

    def note(self, loss: float, step: int, ids: list) -> None:
        """Take a step's loss, looked at already, into the mean."""
        if not math.isfinite(loss):
            self.refuse(step, ids)
        self.mean -= self.mean / step
        self.mean += loss / step
