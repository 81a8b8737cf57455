"""Entries of AudioSet (Gemmeke et al., 2017), of clips that were found on YouTube."""

import logging
from pathlib import Path

from petl_modules import data
from petl_modules.data.splits import split_off
from petl_modules.data.tables import read_records
from petl_modules.errors import UserError
from petl_modules.kinds import Fraction

logger = logging.getLogger("petl_modules.recipes.audioset")

NAMES = "class_labels_indices.csv"
LAYOUT = (
    "it must hold class_labels_indices.csv, balanced_train_segments.csv and "
    "eval_segments.csv (https://research.google.com/audioset), and beside "
    "each list a folder of its name with the cut clips, YTID.wav or YYTID.wav."
)


def prepare_audioset(
    data_folder: str,
    train_list: str = "balanced_train_segments",
    test_list: str = "eval_segments",
    valid_fraction: Fraction = 0.1,
    seed: int = 0,
) -> tuple[data.Splits, list[str]]:
    """Entries of the clips that are there; of the others YouTube has taken some back,
    and how many is said in the log.

    Arguments
    ---------
    data_folder : str
        With the lists, and a folder of clips of ten seconds for each, there or in a
        folder audio.
    train_list : str
        balanced_train_segments or unbalanced_train_segments.
    test_list : str
    valid_fraction : float
        Of the training clips; AudioSet has no validation set.
    seed : int
        Of that split.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the labels are those of the clips, in
        the order of class_labels_indices.csv.

    Raises
    ------
    UserError
        For a wrong folder or list.
    """
    folder = data.data_folder_of("AudioSet", data_folder, NAMES, LAYOUT)
    names = {
        row["mid"]: row["display_name"]
        for _, row in data.read_table(folder / NAMES, ("mid", "display_name"))
    }
    train = segments(folder, train_list, names)
    known = {label for entry in train.values() for label in entry["labels"]}
    test = {
        key: {**entry, "labels": [x for x in entry["labels"] if x in known]}
        for key, entry in segments(folder, test_list, names).items()
    }
    train, valid = split_off(train, valid_fraction, seed, "valid")
    labels = [name for name in dict.fromkeys(names.values()) if name in known]
    return {"train": train, "valid": valid, "test": test}, labels


def segments(folder: Path, listed: str, names: dict[str, str]) -> dict[str, dict]:
    """Entries of the clips of a list that are there."""
    path = folder / f"{listed}.csv"
    homes = (folder / "audio" / listed, folder / listed)
    home = next((home for home in homes if home.is_dir()), None)
    if home is None:
        raise UserError(f"The data folder {folder} has no {listed}: {LAYOUT}")
    there = {file.stem: file for file in data.files_below(home) if data.is_audio(file)}
    entries, missing = {}, 0
    for place, row in read_records(path, comment="#"):
        if len(row) != 4:
            raise UserError(f"{place} has {len(row)} columns, not 4.")
        video, mids = row[0], row[3].split(",")
        clip = there.get(video) or there.get(f"Y{video}")
        if clip is None:
            missing += 1
            continue
        for mid in mids:
            if mid not in names:
                raise UserError(f"{place} has the label {mid}, which {NAMES} lacks.")
        labels = list(dict.fromkeys(names[mid] for mid in mids))
        entries[data.clip_id(folder, clip)] = {"wav": str(clip), "labels": labels}
    if missing:
        logger.warning("%s: %d clips are not there.", path.name, missing)
    if not entries:
        raise UserError(f"None of the clips of {path} is in {home}.")
    return entries
