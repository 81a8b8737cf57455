"""The one exception for a user's mistake, and checks that raise it."""

from collections.abc import Collection
from typing import Any, TypeVar

Value = TypeVar("Value")
Name = TypeVar("Name", bound=str | None)


class UserError(ValueError):
    """A mistake that the user can mend: what is wrong, where, and what to do.

    The command line prints the message alone, without a traceback, and exits
    with status 2.
    """


class Damaged(UserError):
    """Results that are there, but not whole."""


def one_of(name: str, value: Value, choices: Collection[Any]) -> Value:
    """`value`, if it is among `choices`.

    Raises
    ------
    UserError
        Naming the choices.
    """
    if value not in choices:
        raise UserError(f"{name}={value} is unknown: choose {' or '.join(choices)}.")
    return value


def known_device(name: Name) -> Name:
    """`name`, if torch has such a device here; None is torch's own choice.

    Raises
    ------
    UserError
    """
    import torch  # which takes seconds, and most mistakes need none

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        raise UserError(f"There is no device={name} here.") from None
    return name
