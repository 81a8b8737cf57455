"""Recipes run by forks of a server that has imported what they need.

torch, transformers and SpeechBrain take seconds to import, more than many a small job
takes to train. The server imports them once; each job is a fork of it, and so a process
of its own, which sees what it would see if its command line had started it.
"""

import atexit
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path

SERVER = "petl_modules.grid.server"


def run_forked(
    command: Sequence[str],
    log: int,
    held: int,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a recipe's command line in a fork, and wait for its end.

    Arguments
    ---------
    command : list of str
        `PYTHON TRAIN.PY HPARAMS.YAML --key=value ...`; this Python, whichever is named.
    log, held : int
        Open files: of what it prints, and of a lock that it holds as long as it lives.
    environment : dict or None
        Variables beside those of this process.

    Returns
    -------
    int
        The exit status; of one that a signal ended, the signal's number below zero.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([SERVER])
    process = context.Process(
        target=become,
        args=(
            list(command[1:]),
            Inherited(log),
            Inherited(held),
            {**os.environ, **(environment or {})},
            os.getcwd(),
        ),
    )
    process.start()
    process.join()
    return process.exitcode


# Helpers


class Inherited:
    """An open file of this process, which is open in the fork too."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple:
        return taken, (DupFd(self.number),)


def taken(duplicate: object) -> int:
    """The number of an inherited file in the fork."""
    return duplicate.detach()


def become(
    arguments: list[str],
    log: int,
    held: int,
    environment: dict[str, str],
    folder: str,
) -> None:
    """Be the process of a command line; `held` stays open to the end."""
    import torch

    from petl_modules.grid.server import HAS_GPU
    from petl_modules.train.recipes import start

    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if HAS_GPU and torch.cuda._is_in_bad_fork():  # what was imported asked the driver
        os.set_inheritable(held, True)
        os.execv(sys.executable, [sys.executable, *arguments])
    # torch makes its pool anew in a fork: threads that were first to ask would race
    torch.set_num_threads(torch.get_num_threads())
    try:
        start(str(Path(arguments[0]).parent), arguments[1:])
    finally:  # a fork ends without them
        atexit._run_exitfuncs()
