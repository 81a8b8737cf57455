"""What lies between two validations: an epoch, or so many steps of an endless stream of
epochs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plan:
    """How long training is, and how often it is judged.

    Attributes
    ----------
    steps : int
        Optimizer steps of the whole training.
    period : int
        Those between two validations; the last ones may be fewer.
    """

    steps: int
    period: int

    @classmethod
    def of(
        cls,
        epoch: int,
        number_of_epochs: int,
        number_of_steps: int | None = None,
        evaluate_every: int | None = None,
    ) -> "Plan":
        """The plan for epochs of so many steps."""
        steps = number_of_epochs * epoch if number_of_steps is None else number_of_steps
        return cls(steps, evaluate_every or epoch)

    @property
    def periods(self) -> int:
        """How many validations there are."""
        return -(-self.steps // self.period)

    def done_after(self, period: int) -> int:
        """Steps that are done after so many periods."""
        return min(self.steps, period * self.period)


class Periods:
    """The batches of one period after another.

    Epochs follow each other without a break, each in its own order; a period takes up
    the stream where the one before left it.

    Arguments
    ---------
    batches : torch.utils.data.Sampler
        Of lists of clips, with `set_epoch`; as many in every epoch.
    plan : Plan
    factor : int
        Batches of an optimizer step.
    """

    def __init__(self, batches: Any, plan: Plan, factor: int = 1) -> None:
        self.batches, self.plan, self.factor = batches, plan, factor
        self.current = 1

    def set_epoch(self, period: int) -> None:
        """Choose a period, counted from 1."""
        self.current = period

    def __len__(self) -> int:
        return len(self.stretch)

    def __iter__(self) -> Iterator[list[int]]:
        stretch, size = self.stretch, len(self.batches)
        for epoch in range(stretch.start // size, -(-stretch.stop // size)):
            self.batches.set_epoch(epoch + 1)
            own = range(epoch * size, (epoch + 1) * size)
            for place, batch in zip(own, self.batches, strict=True):
                if place in stretch:
                    yield batch

    @property
    def stretch(self) -> range:
        """The places of the period's batches in the stream."""
        first, last = (self.plan.done_after(self.current - back) for back in (1, 0))
        return range(first * self.factor, last * self.factor)
