"""Entries of Common Voice (Ardila et al., arXiv 1912.06670), one language of it."""

from pathlib import Path

from petl_modules import data
from petl_modules.data.units import normalized, with_units
from petl_modules.errors import UserError

FILES = {"train": "train", "valid": "dev", "test": "test"}
COLUMNS = ("path", "sentence")
LAYOUT = (
    "it must be the unpacked folder of one language, such as "
    "cv-corpus-17.0-2024-03-15/en, with train.tsv, dev.tsv, test.tsv and clips/ "
    "(https://commonvoice.mozilla.org/datasets)."
)


def prepare_sentences(
    data_folder: str, train_list: str = "train"
) -> tuple[data.Splits, None]:
    """Entries with the sentences as they were read, for a backbone that writes text.

    Arguments
    ---------
    data_folder : str
        Of one language, with clips/ and the lists.
    train_list : str
        The list that trains, without .tsv; of validated, whose speakers the test set
        shares, what the other two have is left out.

    Returns
    -------
    splits, None
        For `petl_modules.data.make_manifests`.

    Raises
    ------
    UserError
        For a wrong folder or list.
    """
    folder = data.data_folder_of("Common Voice", data_folder, "clips", LAYOUT)
    splits = {
        name: listed(folder, train_list if name == "train" else file)
        for name, file in FILES.items()
    }
    for key in splits["valid"] | splits["test"]:
        splits["train"].pop(key, None)
    return splits, None


def prepare_units(
    data_folder: str,
    language: str | None,
    tokens: str,
    vocab_size: int,
    train_list: str = "train",
) -> tuple[data.Splits, list[str]]:
    """Entries for CTC, with texts as of `petl_modules.data.units.normalized`.

    Arguments
    ---------
    data_folder
        As of `prepare_sentences`.
    train_list : str
        The list that trains, without .tsv, such as train or validated.
    language : str or None
        Its code, such as tr; None for the name of the folder.
    tokens, vocab_size
        As of `petl_modules.data.units.with_units`.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`.

    Raises
    ------
    UserError
        For a wrong folder or list.
    """
    splits, _ = prepare_sentences(data_folder, train_list)
    folder = data.data_folder_of("Common Voice", data_folder, "clips", LAYOUT)
    for entry in (entry for split in splits.values() for entry in split.values()):
        entry["text"] = normalized(entry["text"], language or folder.name)
    return with_units(splits, tokens, vocab_size)


def listed(folder: Path, name: str) -> dict[str, dict]:
    """The entries of one list."""
    path = folder / f"{name}.tsv"
    header, *lines = data.read_lines(path)
    columns = header.split("\t")  # sentences have quotes of their own, which quote none
    if missing := set(COLUMNS).difference(columns):
        raise UserError(f"{path} lacks the columns {', '.join(sorted(missing))}.")
    clips, text = (columns.index(column) for column in COLUMNS)
    home, entries = folder / "clips", {}
    for number, line in enumerate(lines, 2):
        row = line.split("\t")
        if len(row) <= max(clips, text) or not row[text]:
            raise UserError(f"{path}, line {number} has no sentence.")
        clip = row[clips] if "." in row[clips] else f"{row[clips]}.mp3"
        wav = data.inside(home, clip)
        if (key := data.clip_id(home, wav)) in entries:
            raise UserError(f"{path}, line {number} repeats {key}.")
        entries[key] = {"wav": str(wav), "text": row[text]}
    return entries
