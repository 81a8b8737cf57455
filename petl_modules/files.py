"""Files that are whole or not there, and what tells their versions apart."""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

import torch
from safetensors.torch import save

from petl_modules.errors import UserError, why_not_written

logger = logging.getLogger(__name__)

# What file systems say that have no locks, as some of clusters
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
# Times at the end of a recording's name, as W3C's media fragments have them
PART = re.compile(r"(.+)#t=(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)?", re.DOTALL)

# The backbone that comes with the package, a checkpoint in transformers' layout
EMBEDDED = Path(__file__).parent / "embedded" / "model"
# The backbones that come with the package, by the name that they are asked for
SHIPPED = {"embedded": EMBEDDED, "kathleen": Path(__file__).parent / "tts" / "kathleen"}


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Write a file that is there whole or not at all, whoever else writes it and
    whenever this process is killed.

    Arguments
    ---------
    path : str or Path
        Where the file is to be; its folder is made if need be.

    Yields
    ------
    Path
        Another name in the same folder, with the same suffix, to write to. The file
        takes its place when the block ends, and is removed where the block fails.

    Raises
    ------
    UserError
        If the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    refuse_folder(path)
    make_folder(path.parent)
    partial = path.with_name(f".{uuid4().hex[:12]}.partial{path.suffix}")
    try:
        yield partial
        with open(partial, "rb+") as stream:
            os.fsync(stream.fileno())  # or a power failure leaves an empty file
        partial.replace(path)
    except Exception as error:
        if (why := why_not_written(error)) is None:
            raise
        raise UserError(f"{path} cannot be written: {why}.") from None
    finally:
        with suppress(OSError):  # it is gone, as it should be
            partial.unlink()


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Write a folder that is there with all its files or not at all.

    Arguments
    ---------
    path : str or Path
        Where the folder is to be: nothing, or an empty folder.

    Yields
    ------
    Path
        Another folder beside it, to write to, which takes its place when the block
        ends, and is removed where the block fails.

    Raises
    ------
    UserError
        If the folder holds something, the disk is full, or the place cannot be written
        to.
    """
    path = Path(os.path.abspath(path))  # `.` has no name
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} holds something already: name a new folder.")
    partial = path.with_name(f".{uuid4().hex[:12]}.partial")
    make_folder(partial)
    try:
        yield partial
        partial.replace(path)
    except UserError as error:  # names files by the name that they would have
        raise UserError(str(error).replace(str(partial), str(path))) from None
    except Exception as error:
        if (why := why_not_written(error)) is None:
            raise
        raise UserError(f"{path} cannot be written: {why}.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """Remove what processes that were killed had begun to write in a folder that no
    process writes in now."""
    for path in folder.rglob(".*.partial*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def writing(folder: str | Path) -> Iterator[None]:
    """Say in one sentence why a block, whose libraries write files, could not.

    Raises
    ------
    UserError
        If the disk is full, or the folder cannot be written to or is gone.
    """
    try:
        yield
    except Exception as error:
        if (why := why_not_written(error)) is not None:
            raise UserError(
                f"{folder} cannot be written to: {why}. The same command goes on from "
                "the last checkpoint."
            ) from None
        if not isinstance(error, UserError) and not Path(folder).exists():
            raise UserError(f"{folder} was deleted while it was in use.") from None
        raise


def make_folder(path: str | Path) -> Path:
    """A folder, made if need be.

    Raises
    ------
    UserError
        If it cannot be.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The folder {path} cannot be made: {error.strerror}."
        ) from None
    return Path(path)


@contextmanager
def lock(
    path: str | Path, busy: Callable[[], object] = lambda: None
) -> Iterator[TextIO]:
    """Let one process at a time run the block, and the next when it ends, however it
    ends. Where a file system has no locks the block runs with a warning.

    Arguments
    ---------
    path : str or Path
        A file of no content that the processes share.
    busy : callable
        Called where another process holds the lock, before it is waited for; may
        raise instead.

    Yields
    ------
    file
        The open file: a process that inherits it holds the lock too.
    """
    with open(path, "w", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy()
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            logger.warning(
                "The file system of %s has no locks (%s): see to it that no other "
                "process works there.",
                Path(path).parent,
                error.strerror,
            )
        yield held


def refuse_folder(path: Path) -> None:
    """Raise a UserError for what is to be a file and is a folder."""
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder: name a file.")


def write_text(path: str | Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all; bytes of file names that are no
    UTF-8 stand in it as `\\udcxx`."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: object) -> None:
    """Write JSON, whole or not at all; it gives back every string as it was."""
    # JSON writes such bytes of file names just as `backslashreplace` does
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a safetensors file, whole or not at all, from tensors on any device.

    Arguments
    ---------
    path : str or Path
    tensors : dict
        By name.
    metadata : dict or None
        Of strings, for the file's header.
    """
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with whole(path) as partial:
        # safetensors' save_file would make it the user's alone
        partial.write_bytes(save(plain, metadata))


def write_figure(path: str | Path, figure: Any, dpi: int) -> None:
    """Write a figure of matplotlib, whole or not at all, in the format that the file's
    name ends in."""
    with whole(path) as partial:
        figure.savefig(partial, dpi=dpi)


def checksum(path: str | Path) -> str:
    """SHA-256 of a file's content."""
    found = hashlib.sha256()
    with open(path, "rb") as stream:
        while part := stream.read(2**20):
            found.update(part)
    return found.hexdigest()


def digest(value: object) -> str:
    """A hash of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def listing(paths: Iterable[str | Path]) -> list[list]:
    """`[[path, size, mtime], ...]`: what changes when files do; of a part of a
    recording (`part_of`) its own name, and size and time of the recording."""
    rows = []
    for path in sorted(map(str, paths)):
        try:
            stat = os.stat(file_and_times(path)[0])
        except OSError:
            rows.append([path, 0, 0])
        else:
            rows.append([path, stat.st_size, stat.st_mtime])
    return rows


def part_of(path: str | Path, start: float = 0.0, end: float | None = None) -> str:
    """The name of a part of a recording, from `start` to `end` in seconds: its path,
    and W3C's media fragment. It stands wherever a recording's path may.

    Example
    -------
    >>> part_of("radio.flac", 12.5, 14.0)
    'radio.flac#t=12.5,14.0'
    """
    if not start and end is None:
        return str(path)
    return f"{path}#t={float(start)},{'' if end is None else float(end)}"


def file_and_times(name: str | Path) -> tuple[str, float, float | None]:
    """Path, start and end, in seconds, of a recording or of a part of one.

    Example
    -------
    >>> file_and_times("radio.flac#t=12.5,")
    ('radio.flac', 12.5, None)
    """
    found = PART.fullmatch(str(name))
    if found is None:
        return str(name), 0.0, None
    path, start, end = found.groups()
    return path, float(start), float(end) if end else None
