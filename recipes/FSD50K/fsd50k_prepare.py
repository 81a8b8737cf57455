"""Entries of FSD50K (Fonseca et al., arXiv 2010.00475)."""

from pathlib import Path

from petl_modules import data
from petl_modules.data.tables import read_records
from petl_modules.errors import UserError

TRUTH = "FSD50K.ground_truth"
AUDIO = {"dev": "FSD50K.dev_audio", "eval": "FSD50K.eval_audio"}
COLUMNS = ("fname", "labels")
SPLITS = {"train": "train", "val": "valid"}  # of dev.csv
LAYOUT = (
    "it must hold FSD50K.dev_audio, FSD50K.eval_audio and FSD50K.ground_truth with "
    "dev.csv, eval.csv and vocabulary.csv (https://zenodo.org/records/4060432)."
)


def prepare_fsd50k(data_folder: str) -> tuple[data.Splits, list[str]]:
    """Entries of the official splits: those of dev.csv train and validate, eval.csv
    tests.

    Arguments
    ---------
    data_folder : str
        With FSD50K.ground_truth and both folders of recordings.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the labels are those of vocabulary.csv,
        in its order.

    Raises
    ------
    UserError
        For a wrong folder or table.
    """
    folder = data.data_folder_of("FSD50K", data_folder, f"{TRUTH}/dev.csv", LAYOUT)
    labels = vocabulary(folder / TRUTH / "vocabulary.csv")
    splits = {name: {} for name in data.SPLITS}
    for part, columns in (("dev", (*COLUMNS, "split")), ("eval", COLUMNS)):
        for place, row in data.read_table(folder / TRUTH / f"{part}.csv", columns):
            split = "test" if part == "eval" else SPLITS.get(row["split"])
            if split is None:
                raise UserError(
                    f"{place} has the split {row['split']}, no train or val."
                )
            own = row["labels"].split(",")
            for label in own:
                if label not in labels:
                    raise UserError(f"{place} has {label}, not of vocabulary.csv.")
            path = data.inside(folder / AUDIO[part], f"{row['fname']}.wav")
            if (key := data.clip_id(folder, path)) in splits[split]:
                raise UserError(f"{place} repeats {row['fname']}.")
            splits[split][key] = {"wav": str(path), "labels": own}
    return splits, labels


def vocabulary(path: Path) -> list[str]:
    """The labels of vocabulary.csv, which has no heading: number, label, Freebase's
    id."""
    rows = read_records(path)
    if any(len(row) != 3 for _, row in rows):
        raise UserError(f"{path} must have three columns: number, label, id.")
    return [row[1] for _, row in rows]
