"""Runs as they lie on the disk: their settings, and results or the reason for none."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from petl_modules.data import read_table
from petl_modules.errors import Damaged, UserError
from petl_modules.grid.jobs import FAILURE, Job, failure
from petl_modules.tasks.classification import PREDICTIONS
from petl_modules.train.config import load_config
from petl_modules.train.results import HPARAMS, RESULTS, read_results
from petl_modules.use.adapter_schema import SETTINGS, read_json

UNFINISHED = "It is not finished: no results, and no word of a failure."


@dataclass(frozen=True)
class Run:
    """A run's folder, with results or the reason why there are none.

    Attributes
    ----------
    folder : Path
    settings : dict or None
        None where they are not known.
    result : dict or None
        Of results.json.
    problem : str or None
    task, name : str or None
        What a benchmark's file calls its recipe, and its method.
    """

    folder: Path
    settings: dict | None
    result: dict | None
    problem: str | None
    task: str | None = None
    name: str | None = None

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.settings["seed"]

    @property
    def fold(self) -> int | None:
        """The fold of the run, or None."""
        return self.settings["fold"]

    @cached_property
    def classes(self) -> int | None:
        """How many classes it tells apart, as its adapter says; None if that says
        nothing."""
        try:
            labels = read_json(self.folder / SETTINGS)["info"]["labels"]
        except (UserError, KeyError, TypeError):
            return None
        return len(labels) if isinstance(labels, list) else None

    @cached_property
    def predictions(self) -> list[tuple[str, str, str]] | None:
        """`(clip, label, prediction)` of every test clip; None for other tasks.

        Raises
        ------
        UserError
            For a damaged file.
        """
        path = self.folder / PREDICTIONS
        if not path.exists():
            return None
        columns = ("id", "label", "prediction")
        rows = read_table(path, columns)
        return [tuple(row[column] for column in columns) for _, row in rows]


def runs_below(folder: str | Path) -> list[Run]:
    """All runs below a folder, by path.

    Raises
    ------
    UserError
        If there are none.
    """
    root = Path(folder)
    marks = (HPARAMS, RESULTS, FAILURE)
    homes = {path.parent for mark in marks for path in root.glob(f"**/{mark}")}
    if not homes:
        raise UserError(f"There is no {RESULTS} below {folder}.")
    return [read_run(home) for home in sorted(homes)]


def read_run(folder: Path) -> Run:
    """The run in a folder."""
    settings = result = problem = None
    try:
        settings = load_config(folder / HPARAMS).settings()
        result = sound(read_results(folder / RESULTS), folder / RESULTS)
    except UserError as error:
        problem = str(error)
    return told(Run(folder, settings, result, problem))


def read_job(job: Job) -> Run:
    """The run of a benchmark's job."""
    result = problem = None
    try:
        result = sound(job.results(), job.folder / RESULTS)
    except UserError as error:
        problem = str(error)
    settings = job.config.settings()
    return told(Run(job.folder, settings, result, problem, job.task, job.name))


# Helpers


def sound(result: dict[str, Any] | None, path: Path) -> dict[str, Any] | None:
    """A result, if what a report reads of it is as a run writes it; None stays.

    Raises
    ------
    Damaged
        For one that was changed by hand.
    """
    if result is not None and not all(map(is_number, numbers_of(result))):
        raise Damaged(f"{path} was changed by hand: a report needs numbers in it.")
    return result


def numbers_of(result: Any) -> Iterator[object]:
    """What must be numbers in a result; None where something else is wrong."""
    parts, metrics = result["parameters"], result["metrics"]
    splits = metrics.values() if isinstance(metrics, dict) else [None]
    for found in (*splits, parts):
        yield from found.values() if isinstance(found, dict) and found else [None]
    yield result["seconds"]
    yield result["peak_memory_mib"]
    if isinstance(parts, dict):
        yield from (parts.get(key) for key in ("petl", "norms", "head"))
    if isinstance(metrics, dict) and "valid" not in metrics:
        yield None


def is_number(value: object) -> bool:
    """Whether something is a finite number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def told(run: Run) -> Run:
    """The run, with the reason if it has no results of a test."""
    if run.problem is not None:
        return run
    if run.result is not None:
        if "test" in run.result["metrics"]:
            return run
        problem = "It was not tested (test=False)."
    else:
        problem = failure(run.folder) or UNFINISHED
    return replace(run, result=None, problem=problem)
