"""Short names for what runs were told: in folders' names and in tables."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from petl_modules.train.config import Config, load_config
from petl_modules.train.refusals import PATHS
from petl_modules.train.results import HARMLESS

LONGEST = 120  # characters of a folder's name: file systems take 255 bytes
# Settings that stand elsewhere in a run's path
SAID = {"method", "task", "few_shot", "seed", "fold"}
MANY = 4  # entries of a list that are shown


def as_text(value: object) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shown(key: str, value: object) -> str:
    """A setting as a reader needs it: of a path its last part, of a long list how
    many.

    Example
    -------
    >>> shown("source", "/models/whisper-tiny"), shown("words", ["a"] * 30)
    ('source=whisper-tiny', 'words=30 of them')
    """
    if key in PATHS and isinstance(value, str):
        value = Path(value).name
    if isinstance(value, list) and len(value) > MANY:
        return f"{key}={len(value)} of them"
    return f"{key}={as_text(value)}"


def folder_name(settings: Mapping[str, object]) -> str:
    """A folder's name for settings, the same whenever they are: short and readable,
    and where something was left out of it, unlike the name of any other settings.

    Arguments
    ---------
    settings : dict

    Example
    -------
    >>> folder_name({"rank": 4, "lr": 0.001})
    'rank=4,lr=0.001'
    """
    whole = ",".join(f"{key}={as_text(value)}" for key, value in settings.items())
    name = whole.replace("/", "-")
    if len(name.encode()) <= LONGEST and name.isprintable():
        return name
    brief = ",".join(shown(key, value) for key, value in settings.items())
    safe = "".join(c if c.isalnum() or c in "=,.-_ " else "-" for c in brief)
    cut = safe.encode()[: LONGEST - 9].decode(errors="ignore")
    return f"{cut}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def apart(config: Config, plain: Config) -> str:
    """A name for what a command line changed that its run's folder does not say
    otherwise; empty where nothing is. A path that a recipe always needs, such as a
    data set's, is no change.

    Arguments
    ---------
    config : Config
    plain : Config
        The same yaml and method, and nothing else said.
    """
    unsaid = HARMLESS | SAID | {key for key in PATHS if plain.get(key) is None}
    if config["own_data"]:
        unsaid -= {"data_folder", "data"}
    changed = {
        key: brief(key, config[key])
        for key in sorted(config.given - unsaid)
        if config[key] != plain.get(key)
    }
    return folder_name(changed)


def with_own_folder(config: Config, prepare: Callable | None = None) -> Config:
    """The config with a folder of its own below the recipe's, for data, a backbone
    or settings that are not the recipe's own; unless the command line names a folder.

    Arguments
    ---------
    config : Config
    prepare : callable or None
        Of the recipe.
    """
    if "output_folder" in config.given:
        return config
    plain = load_config(config.path, chosen(config), prepare)
    home = Path(config["output_folder"]) / apart(config, plain)
    return config.replace(output_folder=str(home))


def chosen(config: Config) -> list[str]:
    """The command line of what stands elsewhere in a run's path: method and task."""
    keys = ("method", "task") if "task" in config.knobs else ("method",)
    return [f"--{key}={config[key]}" for key in keys]


# Helpers


def brief(key: str, value: Any) -> Any:
    """A setting's value without what a shell would take for its own: a path's last
    part, a list's entries."""
    if key in PATHS:
        return Path(str(value)).name
    return "+".join(map(as_text, value)) if isinstance(value, list) else value
