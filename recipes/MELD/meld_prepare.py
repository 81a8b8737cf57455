"""Entries of MELD (Poria et al., arXiv 1810.02508)."""

import logging
from pathlib import Path

from petl_modules import data
from petl_modules.data.units import normalized, with_units
from petl_modules.errors import UserError

logger = logging.getLogger("petl_modules.recipes.meld")

COLUMNS = ("Emotion", "Dialogue_ID", "Utterance_ID")
# the csv's name for a split, and the folder that its clips are released in
PARTS = {
    "train": ("train", "train_splits"),
    "valid": ("dev", "dev_splits_complete"),
    "test": ("test", "output_repeated_splits_test"),
}
SUFFIXES = (".wav", ".flac", ".mp4")
LAYOUT = (
    "it must be the unpacked MELD.Raw with train_splits/, dev_splits_complete/, "
    "output_repeated_splits_test/ and the three *_sent_emo.csv "
    "(https://affective-meld.github.io)."
)


def prepare_meld(data_folder: str) -> tuple[data.Splits, list[str]]:
    """Entries of the official split; the sound is that of the clips dia*_utt*.mp4, or
    of wav or flac files in their place.

    Arguments
    ---------
    data_folder : str
        With {train,dev,test}_sent_emo.csv and the folders of clips, each of them
        there or in a folder train, dev or test.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the classes are the seven emotions,
        sorted. Entries hold text and speaker too.

    Raises
    ------
    UserError
        For a wrong folder or csv.
    """
    folder = data.data_folder_of("MELD", data_folder, ".", LAYOUT)
    splits = {}
    for name, (part, clips) in PARTS.items():
        table = found(folder, part, f"{part}_sent_emo.csv")
        home = found(folder, part, clips)
        splits[name] = {}
        for place, row in data.read_table(table, COLUMNS):
            clip = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
            if clip in splits[name]:
                raise UserError(f"{place} repeats {clip}.")
            splits[name][clip] = {
                "wav": str(with_suffix(home, clip)),
                "label": row["Emotion"].strip().lower(),
                "text": row.get("Utterance") or "",
                "speaker": row.get("Speaker") or "",
            }
    return splits, sorted({entry["label"] for entry in splits["train"].values()})


def prepare_text(
    data_folder: str, tokens: str, vocab_size: int
) -> tuple[data.Splits, list[str]]:
    """Entries of the same split with what is said, as of
    `petl_modules.data.units.normalized`; lines without words are left out and counted.

    Arguments
    ---------
    data_folder : str
        As of `prepare_meld`.
    tokens, vocab_size
        As of `petl_modules.data.units.with_units`.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`.

    Raises
    ------
    UserError
        For a wrong folder or csv.
    """
    films, _ = prepare_meld(data_folder)
    splits, silent = {}, 0
    for name, entries in films.items():
        texts = {key: normalized(entry["text"]) for key, entry in entries.items()}
        silent += sum(not text for text in texts.values())
        splits[name] = {
            key: {"wav": entries[key]["wav"], "text": text}
            for key, text in texts.items()
            if text
        }
    if silent:
        logger.warning("Left out: %d lines without words.", silent)
    return with_units(splits, tokens, vocab_size)


def found(folder: Path, part: str, name: str) -> Path:
    """A file or folder of a part of the data set."""
    for path in (folder / name, folder / part / name):
        if path.exists():
            return path
    raise UserError(f"The data folder {folder} has no {name}: {LAYOUT}")


def with_suffix(home: Path, clip: str) -> Path:
    """The clip in the format that is there; mp4, as released, where none is."""
    paths = [data.inside(home, clip + suffix) for suffix in SUFFIXES]
    return next((path for path in paths if path.exists()), paths[-1])
