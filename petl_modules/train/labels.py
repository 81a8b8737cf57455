"""Short names for what runs were told: in folders' names and in tables."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from petl_modules.train.refusals import PATHS

LONGEST = 120  # characters of a folder's name: file systems take 255 bytes
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
