"""What processes that train together share, and what each has of it."""

from collections.abc import Iterator
from typing import Any

import torch


class SharedBatches:
    """One process's part of every batch.

    Arguments
    ---------
    batches : torch.utils.data.Sampler
        Of lists of clips, with `set_epoch`.
    rank, processes : int
        Which of how many.
    """

    def __init__(self, batches: Any, rank: int = 0, processes: int = 1) -> None:
        self.batches, self.rank, self.processes = batches, rank, processes

    def set_epoch(self, epoch: int) -> None:
        """Draw another order."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        batches = list(self.batches)
        self.sizes = list(map(len, batches))
        for batch in batches:
            # who is left without a clip still takes part in the step
            yield batch[self.rank :: self.processes] or batch[:1]

    def mine(self, step: int) -> bool:
        """Whether this process has clips of its own in a batch; `step` counts from
        1."""
        return self.rank < self.sizes[step - 1]

    def share(self, step: int, weight: float, loss: torch.Tensor) -> torch.Tensor:
        """What this process's mean loss is multiplied with, so that the mean over
        processes is that of the whole batch.

        Arguments
        ---------
        step : int
        weight : float
            Of what this process has read in the whole batch's mean: its clips, or its
            tokens where the loss is a mean over tokens.
        loss : Tensor
            On the device that all of it is computed on, which is not waited for.
        """
        own = weight * self.mine(step)
        total = torch.full((), float(own), device=loss.device)  # a copy would wait
        torch.distributed.all_reduce(total)
        return own * self.processes / total


def take_part(model: torch.nn.Module, mine: bool) -> None:
    """Let batch statistics count what this process reads, or not where it has only the
    copy of another's clip."""
    for module in model.modules():
        if hasattr(module, "takes_part"):
            module.takes_part = mine


def mean_over_processes(value: float, device: str | torch.device) -> float:
    """The mean of a number that each process has one of."""
    if not torch.distributed.is_initialized():
        return value
    total = torch.tensor(value, device=device)
    torch.distributed.all_reduce(total)
    return float(total) / torch.distributed.get_world_size()
