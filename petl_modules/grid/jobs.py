"""One run of a recipe as a command line, in a process of its own."""

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from petl_modules.errors import Damaged
from petl_modules.files import lock, make_folder, write_json
from petl_modules.grid.forks import run_forked
from petl_modules.train.config import Config, load_config
from petl_modules.train.labels import as_text
from petl_modules.train.recipes import HPARAMS, TRAIN, prepare_of, recipe_folder
from petl_modules.train.refusals import with_full_paths
from petl_modules.train.results import RESULTS, finished, run_folder, whole_results

logger = logging.getLogger(__name__)

LOG, FAILURE, LOCK = "log.txt", "failure.json", "lock"
STOPPED = (130, -signal.SIGINT)
EXCEPTION = re.compile(r"^(?:\[rank\d+\]: ?)?([\w.]*(?:Error|Exception)\b.*)")


@dataclass(frozen=True)
class Job:
    """A recipe with all its settings, for one fold and seed.

    Attributes
    ----------
    recipe : str
        A folder in `recipes/`, or a path.
    settings : tuple
        `(key, value)` of the command line, checked as the recipe checks them.
    processes : int
        That train together.
    task, name : str or None
        What a report calls the recipe and the method, if not by their own names.

    Raises
    ------
    UserError
        For a recipe or setting that there is not.
    """

    recipe: str
    settings: tuple
    processes: int = 1
    task: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _ = self.config  # refuses what the recipe would refuse

    @property
    def home(self) -> Path:
        """The recipe's folder."""
        return recipe_folder(self.recipe)

    @cached_property
    def config(self) -> Config:
        """The complete config."""
        hparams, prepare = self.home / HPARAMS, prepare_of(self.home)
        return with_full_paths(load_config(hparams, self.arguments, prepare))

    @cached_property
    def folder(self) -> Path:
        """Where the run leaves its results."""
        return run_folder(self.config, self.config["fold"])

    @property
    def arguments(self) -> list[str]:
        """The overrides of the command line."""
        together = (("processes", self.processes),) if self.processes > 1 else ()
        settings = (*self.settings, *together)
        return [f"--{key}={as_text(value)}" for key, value in settings]

    def command(
        self, python: str = sys.executable, start: str | Path | None = None
    ) -> list[str]:
        """The command line; paths relative to `start` if that is given."""
        files = [self.home / TRAIN, self.home / HPARAMS]
        if start is not None:
            files = [os.path.relpath(path, start) for path in files]
        return [python, *map(str, files), *self.arguments]

    def shown(self) -> str:
        """The command line for a shell in this folder."""
        return shlex.join(self.command("python", Path.cwd()))

    def results(self) -> dict[str, Any] | None:
        """The results if the job is done, else None.

        Raises
        ------
        UserError
            If its folder holds damaged results, or a run of other settings.
        """
        return finished(self.config, self.folder)

    def state(self) -> str:
        """done, failed, or to do; a UserError if a run of other settings is there."""
        try:
            if self.results() is not None:
                return "done"
        except Damaged:
            return "to do"
        return "to do" if failure(self.folder) is None else "failed"


def run_job(
    command: list[str],
    folder: Path,
    environment: dict[str, str] | None = None,
    shielded: bool = False,
    forked: bool = False,
) -> str | None:
    """Run a command line to its end, unless its results are there already.

    What it prints goes to log.txt in the folder, and why it failed to failure.json.
    Another process that runs the same job is waited for, since both would write the
    same files.

    Arguments
    ---------
    command : list of str
    folder : Path
        Of the run.
    environment : dict or None
        Variables beside those of this process.
    shielded : bool
        Let the signals pass that SLURM sends to all processes of a job ahead of its
        end: whoever started the run answers them.
    forked : bool
        Let a process run it that has imported the libraries already: seconds less. The
        command must be that of a recipe.

    Returns
    -------
    str or None
        Why it failed.
    """
    make_folder(folder)

    def busy() -> None:
        logger.info("Waiting for another process that runs %s", folder)

    with (
        lock(folder / LOCK, busy) as held,
        open(folder / LOG, "a+", encoding="utf-8", errors="replace") as log,
    ):
        if done(folder):
            return None
        (folder / FAILURE).unlink(missing_ok=True)
        (folder / RESULTS).unlink(missing_ok=True)  # damaged
        begin = log.seek(0, os.SEEK_END)
        if forked:
            status = run_forked(command, log.fileno(), held.fileno(), environment)
        else:
            status = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                pass_fds=[held.fileno()],  # held as long as either of us lives
                preexec_fn=ignore_warnings if shielded else None,
                check=False,
            ).returncode
        if status == 0 and done(folder):
            return None
        log.seek(begin)
        reason = why(log.read(), status)
    if status not in STOPPED:
        said = {"reason": reason, "status": status, "command": command}
        write_json(folder / FAILURE, said)
    return reason


def failure(folder: Path) -> str | None:
    """Why the run in a folder failed, or None if it is not known to have."""
    try:
        return json.loads((folder / FAILURE).read_text(encoding="utf-8"))["reason"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError):
        return f"{folder / FAILURE} is damaged"


# Helpers


def ignore_warnings() -> None:
    """Ignore what SLURM sends ahead of a job's end."""
    for warning in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(warning, signal.SIG_IGN)


def done(folder: Path) -> bool:
    """Whether a run is whole in a folder."""
    try:
        return whole_results(folder) is not None
    except Damaged:
        return False


def why(text: str, status: int) -> str:
    """The sentence that a failed run ended in."""
    lines = [line.strip() for line in text.splitlines()]
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    for line in reversed(lines):
        found = EXCEPTION.match(line)
        if found and "ChildFailedError" not in line:
            return found[1]
    if status < 0:
        return f"It was killed by {signal.Signals(-status).name}."
    return f"It ended with status {status} and no word."
