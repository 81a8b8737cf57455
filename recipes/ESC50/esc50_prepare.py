"""Manifests for ESC-50 (Piczak, 2015), https://github.com/karolpiczak/ESC-50."""

from pathlib import Path

from petl_modules import data
from petl_modules.errors import UserError

FOLDS = (1, 2, 3, 4, 5)
COLUMNS = ("filename", "fold", "target", "category")
LAYOUT = (
    "it must be the unpacked ESC-50-master with meta/esc50.csv and audio/ "
    "(https://github.com/karolpiczak/ESC-50)."
)


def prepare_esc50(data_folder: str, fold: int) -> tuple[data.Splits, list[str]]:
    """Entries of one of the five official folds.

    Fold k is the test set, the fold before it (5 before 1) the validation set, the
    other three train.

    Arguments
    ---------
    data_folder : str
        With meta/esc50.csv and audio/.
    fold : int
        1 to 5.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the classes are those of the csv, in
        the order of its targets.

    Raises
    ------
    UserError
        For a wrong folder or csv.
    """
    folder = data.data_folder_of("ESC-50", data_folder, "meta/esc50.csv", LAYOUT)
    if fold not in FOLDS:
        raise UserError(f"fold={fold} is none of ESC-50's folds 1 to 5.")
    rows = read_rows(folder / "meta" / "esc50.csv")
    valid_fold = FOLDS[FOLDS.index(fold) - 1]
    splits = {name: {} for name in data.SPLITS}
    for row in rows:
        name = {fold: "test", valid_fold: "valid"}.get(row["fold"], "train")
        path = data.inside(folder / "audio", row["filename"])
        key = data.clip_id(folder / "audio", path)
        splits[name][key] = {"wav": str(path), "label": row["category"]}
    return splits, list(dict.fromkeys(row["category"] for row in rows))


def read_rows(path: Path) -> list[dict]:
    """The rows of esc50.csv, by target and file name."""
    rows, seen = [], set()
    for place, row in data.read_table(path, COLUMNS):
        if row["filename"] in seen:
            raise UserError(f"{place} repeats {row['filename']}.")
        seen.add(row["filename"])
        fold = data.whole_number(place, row, "fold", FOLDS[0], FOLDS[-1])
        target = data.whole_number(place, row, "target")
        rows.append({**row, "fold": fold, "target": target})
    return sorted(rows, key=lambda row: (row["target"], row["filename"]))
