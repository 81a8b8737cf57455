"""The folds of a protocol, one run after another, and their summary."""

import logging
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table
from speechbrain.utils.distributed import if_main_process

from petl_modules.errors import UserError
from petl_modules.files import lock, make_folder, remove_partial, write_json, writing
from petl_modules.train.config import Config
from petl_modules.train.results import (
    RESULTS,
    finished,
    remove_checkpoints,
    report,
    run_folder,
    run_name,
)
from petl_modules.train.run import on_main, run_one

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"
LOCK = "run.lock"


def run_folds(prepare: Callable, config: Config) -> list[dict[str, Any]]:
    """All folds, or the one that `fold` names; returns their results.

    Folds that are done are not run again; with all of them, a summary is written
    and printed.
    """
    folds = config["folds"]
    chosen = [config["fold"]] if config["fold"] is not None or not folds else folds
    results = []
    for place, fold in enumerate(chosen):
        folder = run_folder(config, fold)
        if len(chosen) > 1:
            logger.info("\nFold %s (%d of %d)", fold, place + 1, len(chosen))
        run = config.replace(fold=fold, run_folder=str(folder))
        with alone(folder), writing(folder):
            result = on_main(finished, run, folder)
            if result is None:
                result = run_one(prepare, run, folder, show_table=place == 0)
            else:
                logger.info("Done already: %s", folder / RESULTS)
                if if_main_process():  # of a run that was killed as it removed them
                    remove_checkpoints(folder)
        results.append(result)
        report(result, folder)
    if len(results) > 1 and config["test"] and if_main_process():
        folder = run_folder(config, None).parent
        path = folder / f"{run_name(config, 'all_folds')}_{SUMMARY}"
        summarise(config, results, path)
    return results


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Own a run's folder, as one process or several that train together.

    Raises
    ------
    UserError
        If another run owns it.
    """

    def busy() -> NoReturn:
        raise UserError(f"Another process runs in {folder}: wait for its end.")

    def own() -> None:
        if if_main_process():
            make_folder(folder)
            with writing(folder):
                held.enter_context(lock(folder / LOCK, busy))
                remove_partial(folder)

    with ExitStack() as held:
        on_main(own)
        yield


def summarise(config: Config, results: list[dict[str, Any]], path: Path) -> None:
    """Write and print mean and standard deviation over the folds."""
    tests = [result["metrics"]["test"] for result in results]
    summary = {
        "method": config["method"],
        "folds": [result["fold"] for result in results],
        "test": {
            key: {
                "mean": statistics.mean(test[key] for test in tests),
                "std": statistics.stdev(test[key] for test in tests),
            }
            for key in tests[0]
        },
        "valid": {
            key: statistics.mean(result["metrics"]["valid"][key] for result in results)
            for key in tests[0]
        },
        "parameters": results[0]["parameters"],
        "seconds": round(sum(result["seconds"] for result in results), 1),
    }
    write_json(path, summary)
    shown = Table(
        title=f"{config['dataset']}, {config['method']}", title_justify="left"
    )
    shown.add_column("fold")
    keys = list(tests[0])
    for key in keys:
        shown.add_column(f"test {key}", justify="right")
    for result in results:
        values = [f"{result['metrics']['test'][key]:.4f}" for key in keys]
        shown.add_row(str(result["fold"]), *values)
    shown.add_section()
    for name in ("mean", "std"):
        shown.add_row(name, *(f"{summary['test'][key][name]:.4f}" for key in keys))
    Console().print(shown)
