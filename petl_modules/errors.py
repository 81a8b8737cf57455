"""The one exception for a user's mistake, checks that raise it, and what disks say."""

import errno
from collections.abc import Collection
from typing import Any, TypeVar

Value = TypeVar("Value")
Name = TypeVar("Name", bound=str | None)

# What disks and folders say that take no more
REFUSED = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.EIO,
}
# What torch, safetensors and torchaudio say of them without a number
CANNOT_WRITE = (
    "PytorchStreamWriter",
    "unexpected pos",
    "iostream error",
    "I/O error",
    "No space left",
    "Failed to save audio",
)
SOUNDFILE = "System error."  # all that it says


class UserError(ValueError):
    """A mistake that the user can mend: what is wrong, where, and what to do.

    The command line prints the message alone, without a traceback, and exits
    with status 2.
    """


class Damaged(UserError):
    """Results that are there, but not whole."""


def why_not_written(error: BaseException) -> str | None:
    """Why a disk or folder took no more, or None where an error says something else."""
    if isinstance(error, OSError) and error.errno in REFUSED:
        return error.strerror
    said = "" if isinstance(error, UserError) else str(error)
    if said == SOUNDFILE or any(words in said for words in CANNOT_WRITE):
        return "The disk takes no more"
    return None


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
