"""Folders of one's own recordings: one for each class, in one for each split or not."""

import logging
from pathlib import Path

from petl_modules.data.folders import clips_in, folders_in
from petl_modules.errors import UserError

logger = logging.getLogger(__name__)

# What people call the splits, in small letters
NAMES = {
    "train": {"train", "training"},
    "valid": {"valid", "validation", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
LAYOUT = (
    "it must hold one folder of wav, flac, ogg or mp3 files per class, or the "
    "folders train, valid and test with such folders in them."
)


def split_of(name: str) -> str | None:
    """The split that people call so, or None."""
    return next((s for s, names in NAMES.items() if name.lower() in names), None)


def split_folders(folder: Path) -> dict[str, Path]:
    """The folders of the splits by the splits' names, or none where the folders are
    classes: also one called train, if there are clips right in it, and others beside it
    that are no splits.

    Raises
    ------
    UserError
        For several folders of one split, or for splits whose clips have no class.
    """
    there = folders_in(folder)
    named = [(split, p) for p in there if (split := split_of(p.name))]
    parts = dict(named)
    others = [path.name for path in there if path not in parts.values()]
    if "train" not in parts or (others and clips_in(parts["train"])):
        return {}
    if len(parts) < len(named):
        names = ", ".join(path.name for _, path in named)
        raise UserError(f"The data folder {folder} has several of one split: {names}.")
    for path in parts.values():
        if clips_in(path):
            raise UserError(f"The clips in {path} have no class: {LAYOUT}")
    if others:
        logger.warning("Ignored beside train, valid and test: %s.", ", ".join(others))
    return parts


def class_of(folder: Path, path: Path) -> str | None:
    """The class that a clip's folder says, or None right in `folder`."""
    first, *rest = path.relative_to(folder).parts
    return first if rest else None
