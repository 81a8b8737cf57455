"""What a run leaves in its folder, and whether it is whole."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from petl_modules.errors import Damaged, UserError
from petl_modules.files import checksum, write_json
from petl_modules.train.config import Config, load_config
from petl_modules.use.adapter_schema import SETTINGS, TENSORS

logger = logging.getLogger(__name__)

HPARAMS, RESULTS = "hyperparams.yaml", "results.json"
CHECKPOINTS = "checkpoints"
FILES = (HPARAMS, SETTINGS, TENSORS)  # without which no run is done
# What every results.json has
COMPLETE = ("metrics", "parameters", "seconds", "peak_memory_mib", "epochs")

# Settings that do not change what a run computes
HARMLESS = {
    "output_folder",
    "cache_folder",
    "run_folder",
    "folds",
    "num_classes",
    "labels",
    "own_data",
    "device",
    "num_workers",
    "audio_cache_mib",
    "disk_cache_mib",
    "noprogressbar",
    "ckpt_interval_minutes",
    "ckpt_interval_steps",
    "processes",
    "distributed_backend",
    "wandb",
    "wandb_project",
    "wandb_entity",
    "wandb_name",
    "wandb_tags",
}


def run_folder(config: Config, fold: int | None) -> Path:
    """Where a fold's run goes: output_folder/method/fold and seed, and a folder for
    the task before them where a recipe has several."""
    prefix = "run" if fold is None else f"fold{fold}"
    home = Path(config["output_folder"]) / config.get("task", "")
    return home / config["method"] / run_name(config, prefix)


def run_name(config: Config, prefix: str) -> str:
    """Name of a run within its method's folder."""
    shots = "" if config["few_shot"] is None else f"_shot{config['few_shot']}"
    return f"{prefix}_seed{config['seed']}{shots}"


def write_results(folder: Path, result: dict[str, Any]) -> None:
    """Write results.json, last: it says that all is there, and how it is."""
    files = {name: checksum(folder / name) for name in FILES}
    write_json(folder / RESULTS, {**result, "files": files})


def remove_checkpoints(folder: Path) -> None:
    """Remove a run's checkpoints, which were for going on."""
    for checkpoints in folder.glob(f"**/{CHECKPOINTS}"):
        shutil.rmtree(checkpoints)


def finished(config: Config, folder: Path) -> dict[str, Any] | None:
    """The results of a run that is done, or None; refuses a run of other settings.

    Raises
    ------
    Damaged
        If not all that a run leaves is there as it was left.
    """
    theirs, path = folder / HPARAMS, folder / RESULTS
    if not path.exists():
        return None  # checkpoints say themselves what they belong to
    refuse_lost(theirs, path)
    ours = config.settings()
    for key, value in load_config(theirs).settings().items():
        if key not in HARMLESS and key in ours and ours[key] != value:
            raise UserError(
                f"{folder} holds a run with {key}={value}, now it is {ours[key]}: "
                "choose another --output_folder, or delete that one."
            )
    return whole_results(folder)


def whole_results(folder: Path) -> dict[str, Any] | None:
    """A run's results, or None if there are none.

    Raises
    ------
    Damaged
        If not all that a run leaves is there as it was left.
    """
    path = folder / RESULTS
    result = read_results(path)
    if result is None:
        return None
    known = result.get("files", {})  # earlier versions say none
    for file in (folder / name for name in FILES):
        refuse_lost(file, path)
        if file.name in known and checksum(file) != known[file.name]:
            raise Damaged(f"{file} is damaged: delete {path} to run this again.")
    return result


def refuse_lost(file: Path, results: Path) -> None:
    """Raise Damaged for a file of a run that is gone or empty."""
    if not file.is_file() or file.stat().st_size == 0:
        raise Damaged(f"{file} is gone: delete {results} to run this again.")


def read_results(path: Path) -> dict[str, Any] | None:
    """A run's results, or None if there are none.

    Raises
    ------
    Damaged
        If they are not complete.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        complete = set(COMPLETE) <= set(result)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        complete = False
    if not complete:
        raise Damaged(f"{path} is damaged: delete it to run this again.")
    return result


def report(result: dict[str, Any], folder: Path) -> None:
    """Say how a run ended and where it is."""
    for split, metrics in result["metrics"].items():
        text = ", ".join(f"{k} {v:.4f}" for k, v in metrics.items())
        logger.info("%-6s%s", split, text)
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    logger.info("%s: %s", folder, ", ".join(files))
