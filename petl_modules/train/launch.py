"""Processes that train together on this machine, as torchrun starts them, but in whose
place one sentence tells how they ended."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from petl_modules.errors import UserError

PATIENCE = 30  # seconds that others have to end when one has ended badly
END_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


def run_together(command: Sequence[str], processes: int) -> int:
    """Run a command in so many processes; where one fails the others are stopped.

    Arguments
    ---------
    command : list of str
        Which finds in RANK, LOCAL_RANK and WORLD_SIZE which of how many it is.
    processes : int

    Returns
    -------
    int
        The exit status: that of the first process that failed.

    Raises
    ------
    UserError
        If a process was killed.
    """
    shared = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = []
    try:
        for rank in map(str, range(processes)):
            own = {**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}
            process = subprocess.Popen(
                command,
                env=own,
                start_new_session=True,  # Ctrl-C is for this process
                preexec_fn=end_with_parent,
            )
            started.append(process)
        while None in codes(started) and not any(codes(started)):
            time.sleep(0.05)
        ended = codes(started)
    finally:
        stop(started)
    failed = next((code for code in ended if code), 0)
    if failed < 0:
        raise UserError(
            f"One of {processes} processes was killed by {signal.Signals(-failed).name}"
            ". The same command goes on from the last checkpoint."
        )
    return failed


# Helpers


def codes(started: Sequence[subprocess.Popen]) -> list[int | None]:
    """How processes ended, None of those that run."""
    return [process.poll() for process in started]


def stop(started: Sequence[subprocess.Popen]) -> None:
    """End processes that still run, by force if need be."""
    for process in started:
        if process.poll() is None:
            process.terminate()
    began = time.monotonic()
    for process in started:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, began + PATIENCE - time.monotonic()))
        process.kill()
        process.wait()


def end_with_parent() -> None:
    """Let Linux end this process when the one that started it ends."""
    with suppress(AttributeError, OSError):  # elsewhere
        ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGKILL)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
