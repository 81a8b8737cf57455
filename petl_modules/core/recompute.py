"""Gradient checkpointing: a layer's activations computed again in the backward pass.

transformers' own switch acts in train mode alone, and a frozen base is in eval mode.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

_again = False


def recomputed(function: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    """`function(hidden)`, of which the backward pass finds `hidden` alone.

    Not the reentrant form: to that, nothing trains where its input is frozen.
    """
    contexts = lambda: (nullcontext(), _second_time())  # noqa: E731
    result: Any = checkpoint(function, hidden, use_reentrant=False, context_fn=contexts)
    return result


def second_time() -> bool:
    """Whether a layer is being computed again: what counts batches has counted this."""
    return _again


@contextmanager
def _second_time() -> Iterator[None]:
    global _again
    before, _again = _again, True
    try:
        yield
    finally:
        _again = before
