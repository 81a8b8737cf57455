"""Data sets: manifests of checked clips.

A recipe's `prepare` function turns an official layout into splits of entries;
`make_manifests` checks the clips of them that are used, writes one JSON manifest a
split in SpeechBrain's format, and does nothing when they are up to date.

Paths in manifests are absolute: a run may be started from any folder, and its
manifests belong to it alone.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petl_modules.data.clips import ClipCheck
from petl_modules.data.splits import few_shot
from petl_modules.errors import UserError
from petl_modules.files import (
    digest,
    file_and_times,
    listing,
    make_folder,
    write_json,
)

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
MARKER = "prepared.json"
PARTS = " | "  # between the parts of a label that is told by several softmaxes

Splits = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Prepared:
    """The manifests of one run.

    Attributes
    ----------
    train, valid, test : Path
        Manifests: `{id: {wav, duration, label, ...}}`, duration in seconds.
    labels : list of str or None
        The classes or symbols; their order gives the indices. None where the backbone
        writes text.
    broken : int
        Clips left out because they could not be read.
    """

    train: Path
    valid: Path
    test: Path
    labels: list[str] | None
    broken: int


def make_manifests(
    save_folder: str | Path,
    splits: Splits,
    labels: list[str] | None,
    shots: int | None = None,
    seed: int = 0,
    skip_broken: bool = False,
    draw: str = "random",
) -> Prepared:
    """Check clips and write manifests, unless they are there already.

    Manifests are up to date when they were made from the same splits, settings and
    files. Of a file, path, size and time of change are compared: reading all audio to
    hash it would take as long as checking it again.

    Arguments
    ---------
    save_folder : str or Path
        Where the manifests go.
    splits : dict
        `{"train": {id: {wav, label, ...}}, "valid": ..., "test": ...}`; entries of
        sequence tasks have a text instead of a label, and its units if they are known.
    labels : list of str or None
        All classes or symbols, in the order of their indices; None for plain text.
    shots : int or None
        Training clips per class, drawn with the seed from those that can be read;
        the others are not looked at.
    seed : int
    skip_broken : bool
        Leave clips out that cannot be read, instead of raising.
    draw : str
        How the clips of `shots` are drawn, as of `few_shot`.

    Returns
    -------
    Prepared

    Raises
    ------
    UserError
        For clips that cannot be read, fewer than two classes, an empty split, a label
        that training never sees, held-out clips that train, or manifests that were
        changed by hand.
    """
    folder = Path(save_folder)
    labels = None if labels is None else list(labels)
    check_splits(splits, labels)
    clips = [entry["wav"] for name in SPLITS for entry in splits[name].values()]
    key = digest([splits, labels, shots, draw, seed, skip_broken, listing(clips)])
    if (known := made_before(folder, key)) is not None:
        return known
    check = ClipCheck()
    whole = {"train": few_shot(splits["train"], shots, seed, check.whole, draw)}
    whole |= {name: check.whole(splits[name]) for name in ("valid", "test")}
    if not skip_broken:
        check.refuse_broken()
    check.say_broken()
    check_splits(whole, labels)
    (make_folder(folder) / MARKER).unlink(missing_ok=True)
    for name in SPLITS:
        entries = sorted(whole[name].items())
        write_json(path_of(folder, name), {key: escaped(e) for key, e in entries})
    marker = {"key": key, "labels": labels, "broken": len(check.broken)}
    write_json(folder / MARKER, marker | {"manifests": stamps(folder)})
    counts = ", ".join(f"{len(whole[name])} {name}" for name in SPLITS)
    logger.info("Clips: %s.", counts)
    return prepared(folder, marker)


# Helpers


def made_before(folder: Path, key: str) -> Prepared | None:
    """The manifests in a folder if they are those of a key.

    Raises
    ------
    UserError
        If they were, and have been changed since.
    """
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        stamped = marker["manifests"]
        if marker["key"] != key or not all(path_of(folder, n).exists() for n in SPLITS):
            return None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    for name, stamp in stamps(folder).items():
        if stamped.get(name) != stamp:
            raise UserError(
                f"{path_of(folder, name)} is not as it was made, and a run's results "
                f"would not be those of its data: delete {folder} to have it made "
                "again, and change the data instead."
            )
    return prepared(folder, marker)


def stamps(folder: Path) -> dict[str, str]:
    """What tells whether the manifests in a folder are as they were made."""
    contents = {name: path_of(folder, name).read_bytes() for name in SPLITS}
    return {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()}


def prepared(folder: Path, marker: dict[str, Any]) -> Prepared:
    """What the manifests in a folder are, as its marker says."""
    paths = {name: path_of(folder, name) for name in SPLITS}
    return Prepared(**paths, labels=marker["labels"], broken=marker["broken"])


def path_of(folder: Path, split: str) -> Path:
    """The manifest of a split."""
    return folder / f"{split}.json"


def check_splits(splits: Splits, labels: list[str] | None) -> None:
    """Raise a UserError for splits that nothing can be learnt from, or judged by."""
    for name in SPLITS:
        if not splits[name]:
            raise UserError(f"The {name} split has no clips.")
    if all("labels" in entry for entry in splits["train"].values()):
        check_tags(splits, labels or [])
    classes = all("label" in entry for entry in splits["train"].values())
    if labels and len({*labels}) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UserError(f"The class {twice} is there twice.")
    if classes and len(labels) < 2:
        raise UserError(
            f"There must be two classes or more, here there are {len(labels)}: "
            f"{', '.join(labels) or 'none'}."
        )
    if classes:
        check_labels(splits, labels)
    check_held_out(splits)


def check_labels(splits: Splits, labels: list[str]) -> None:
    """Raise a UserError for a class, or a part of one, that training never sees."""
    train = splits["train"].values()
    seen = {part for entry in train for part in parts_of(entry["label"])}
    for name in ("valid", "test"):
        for key, entry in sorted(splits[name].items()):
            if "trials" in entry:  # of speakers that training has not heard
                continue
            if not seen.issuperset(parts_of(entry["label"])):
                raise UserError(
                    f"The label {entry['label']} of the {name} clip {key} is never "
                    "seen in training."
                )
    for label in labels:
        for place, part in parts_of(label):
            if (place, part) not in seen:
                raise UserError(f"The class {part} has no training clips.")


def check_tags(splits: Splits, labels: list[str]) -> None:
    """Raise a UserError where there is no label, or one that training never sees."""
    if not labels:
        raise UserError("No clip has any label.")
    seen = {x for entry in splits["train"].values() for x in entry["labels"]}
    if lost := sorted(set(labels) - seen):
        raise UserError(f"The label {lost[0]} has no training clips.")


def parts_of(label: str) -> Iterator[tuple[int, str]]:
    """`(place, part)` of a label's parts, one of which a label is if it has no `PARTS`.

    Example
    -------
    >>> list(parts_of("increase | heat | kitchen"))[1]
    (1, 'heat')
    """
    return enumerate(label.split(PARTS))


def check_held_out(splits: Splits) -> None:
    """Raise a UserError for held-out clips that training hears, also by a link."""
    heard = {file_of(entry["wav"]) for entry in splits["train"].values()}
    for name in ("valid", "test"):
        rows = splits[name].items()
        if both := [key for key, entry in rows if file_of(entry["wav"]) in heard]:
            raise UserError(
                f"The {name} split holds {len(both)} of the clips that train, such as "
                f"{min(both)}: choose another for it."
            )


def file_of(wav: str) -> tuple:
    """What is the same for all names of a file, or of a part of it; the name alone of
    one that is not there."""
    path, start, end = file_and_times(wav)
    try:
        found = os.stat(path)
    except OSError:
        return (wav,)
    return found.st_dev, found.st_ino, start, end


def escaped(entry: Any) -> Any:
    """An entry, or a value of one, whose braces SpeechBrain does not take for its
    replacements."""
    if isinstance(entry, str):
        return entry.replace("{", "{{").replace("}", "}}")
    if isinstance(entry, list):
        return [escaped(value) for value in entry]
    if isinstance(entry, dict):
        return {key: escaped(value) for key, value in entry.items()}
    return entry
