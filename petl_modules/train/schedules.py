"""Schedules of the learning rate: its part at every optimizer step."""

import math
from functools import partial
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from petl_modules.errors import UserError

Schedule = Literal["cosine", "linear", "hold", "inverse_sqrt", "constant"]


def make_schedule(
    optimizer: Optimizer,
    steps: int,
    scheduler: Schedule = "cosine",
    warmup: float = 0.0,
    warmup_steps: int | None = None,
    hold: float = 0.4,
) -> LambdaLR:
    """The learning rate rises from zero, and then follows a curve, once a step.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
    steps : int
        Of the whole training.
    scheduler : str
        One of transformers' curves, or hold: held for a while, and then along a line to
        zero, as in SURE (arXiv 2303.03267).
    warmup : float
        The part of all steps in which the learning rate rises from zero.
    warmup_steps : int or None
        The steps in which it does, in the place of a part.
    hold : float
        Under hold, the part of all steps after which the learning rate begins to fall.

    Raises
    ------
    UserError
        If it would begin to fall before it has risen.
    """
    from transformers import get_scheduler  # which takes seconds to import

    rise = round(warmup * steps) if warmup_steps is None else warmup_steps
    if scheduler != "hold":
        name = "constant_with_warmup" if scheduler == "constant" else scheduler
        return get_scheduler(name, optimizer, rise, steps)
    fall = math.ceil(hold * steps)
    if fall < rise:
        raise UserError(
            f"With hold={hold} the learning rate falls from step {fall} on, before it "
            f"has risen for {rise} steps: lower the warm-up, or raise hold."
        )
    return LambdaLR(optimizer, partial(held, rise=rise, fall=fall, steps=steps))


def held(step: int, rise: int, fall: int, steps: int) -> float:
    """The part of the learning rate at a step: a line up to `rise`, all of it up to
    `fall`, and a line down to zero at `steps`."""
    if step < rise:
        return step / rise
    if step < fall:
        return 1.0
    return max(0.0, (steps - step) / max(1, steps - fall))
