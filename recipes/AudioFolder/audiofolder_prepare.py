"""Manifests for one's own recordings: a folder with one folder of clips per class."""

import logging
import re
import unicodedata
from pathlib import Path

from petl_modules import data
from petl_modules.data.class_folders import LAYOUT, split_folders
from petl_modules.data.splits import split_off
from petl_modules.embedded.synthetic import write_sound_folder
from petl_modules.errors import UserError

logger = logging.getLogger("petl_modules.recipes.audiofolder")


def prepare_audiofolder(
    data_folder: str | None,
    output_folder: str,
    valid_fraction: float = 0.2,
    test_fraction: float = 0.2,
    group_regex: str | None = None,
    seed: int = 0,
) -> tuple[data.Splits, list[str]]:
    """Entries of `data_folder/<class>/*`.

    Where there is a folder train with classes in it, train, valid and test are the
    splits, also under other names of theirs such as Training, val or dev; what is
    missing of valid and test is split off the training clips, stratified by class, with
    the seed, and without parting clips of one group.

    Arguments
    ---------
    data_folder : str or None
        None makes a set of synthesised sounds under `output_folder`.
    output_folder : str
    valid_fraction, test_fraction : float
        Of the clips, for splits that are not given.
    group_regex : str or None
        Searched in a clip's path below its class; its first group names the speaker
        or recording that must not fall on two sides.
    seed : int
        Of the split.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the classes are the folders' names,
        sorted.

    Raises
    ------
    UserError
        For a wrong folder or clip, or too few clips.
    """
    if data_folder is None:
        data_folder = Path(output_folder) / "synthetic_sounds"
        write_sound_folder(data_folder, seed=0)
        logger.info("No data_folder: using synthesised sounds in %s.", data_folder)
    folder = data.data_folder_of("your data", data_folder, ".", LAYOUT)
    pattern = compiled(group_regex)
    if parts := split_folders(folder):
        splits = {name: clips_of(part, pattern) for name, part in parts.items()}
    else:
        splits = {"train": clips_of(folder, pattern)}
    labels = sorted({entry["label"] for entry in splits["train"].values()})
    if len(labels) < 2:
        raise UserError(
            f"The data folder {folder} has clips of {len(labels)} classes, and needs "
            f"two or more: {LAYOUT}"
        )
    warn_of_twins(labels)
    share = 1.0
    for name, fraction in (("test", test_fraction), ("valid", valid_fraction)):
        if name in splits:
            continue
        if not 0 < fraction < share:
            raise UserError(
                f"{name}_fraction={fraction} must be above 0, and leave clips to "
                "train on."
            )
        rest, part = split_off(splits["train"], fraction / share, seed, name)
        splits["train"], splits[name] = rest, part
        share -= fraction
    return splits, labels


def clips_of(folder: Path, pattern: re.Pattern | None) -> dict[str, dict[str, str]]:
    """`{id: {wav, label, group}}` of the class folders in `folder`; the id is the path
    in it."""
    entries, others = {}, 0
    for path in (
        p for label in data.folders_in(folder) for p in data.files_below(label)
    ):
        if not data.is_audio(path):
            others += 1
            continue
        key = data.clip_id(folder, path)
        label, _, within = key.partition("/")
        # archives of macOS hold an e and its accent apart
        label = unicodedata.normalize("NFC", label)
        entries[key] = {"wav": str(path), "label": label}
        if pattern is not None:
            entries[key]["group"] = group_of(within, pattern)
    if others:
        logger.info("%d files in %s are no audio and are ignored.", others, folder)
    return entries


def warn_of_twins(labels: list[str]) -> None:
    """Say which classes have one name but for capitals and blanks around it."""
    seen: dict[str, str] = {}
    for label in labels:
        if (twin := seen.setdefault(label.strip().casefold(), label)) != label:
            logger.warning("%s and %s are taken for two classes.", twin, label)


def group_of(name: str, pattern: re.Pattern) -> str:
    """The group that a clip's name gives."""
    match = pattern.search(name)
    if match is None or match.group(1) is None:
        raise UserError(
            f"group_regex={pattern.pattern} does not match the clip {name}."
        )
    return match.group(1)


def compiled(regex: str | None) -> re.Pattern | None:
    """The compiled regex with one group or more, or None."""
    if regex is None:
        return None
    try:
        pattern = re.compile(str(regex))
    except re.error as error:
        raise UserError(
            f"group_regex={regex} is no regular expression: {error}."
        ) from None
    if pattern.groups < 1:
        raise UserError(f"group_regex={regex} has no group in parentheses.")
    return pattern
