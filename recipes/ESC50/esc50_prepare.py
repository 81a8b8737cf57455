"""Manifests for ESC-50 (Piczak, 2015), https://github.com/karolpiczak/ESC-50."""

import csv

from petl_modules import data
from petl_modules.errors import UserError

FOLDS = (1, 2, 3, 4, 5)
COLUMNS = ("filename", "fold", "target", "category")
LAYOUT = (
    "it must be the unpacked ESC-50-master with meta/esc50.csv and audio/ "
    "(https://github.com/karolpiczak/ESC-50)."
)


def prepare_esc50(
    data_folder, save_folder, fold, few_shot=None, seed=0, skip_broken=False
):
    """Manifests of one of the five official folds.

    Fold k is the test set, the fold before it (5 before 1) the validation set, the
    other three train.

    Arguments
    ---------
    data_folder : str
        With meta/esc50.csv and audio/.
    save_folder : str
        Where the manifests go.
    fold : int
        1 to 5.
    few_shot : int or None
        Training clips per class, drawn with the seed.
    seed : int
    skip_broken : bool
        Leave out clips that cannot be read.

    Returns
    -------
    petl_modules.data.Prepared
        The classes are those of the csv, in the order of its targets.

    Raises
    ------
    UserError
        For a wrong folder, csv or clip.
    """
    folder = data.data_folder_of("ESC-50", data_folder, "meta/esc50.csv", LAYOUT)
    if fold not in FOLDS:
        raise UserError(f"fold={fold} is none of ESC-50's folds 1 to 5.")
    rows = read_rows(folder / "meta" / "esc50.csv")
    valid_fold = FOLDS[FOLDS.index(fold) - 1]
    splits = {name: {} for name in data.SPLITS}
    for row in rows:
        name = {fold: "test", valid_fold: "valid"}.get(row["fold"], "train")
        splits[name][row["filename"].rsplit(".", 1)[0]] = {
            "wav": str(data.inside(folder / "audio", row["filename"])),
            "label": row["category"],
        }
    labels = list(dict.fromkeys(row["category"] for row in rows))
    return data.prepared(save_folder, splits, labels, few_shot, seed, skip_broken)


def read_rows(path):
    """The rows of esc50.csv, by target and file name."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{path} is damaged: it is no csv file in UTF-8.") from None
    if not rows:
        raise UserError(f"{path} lists no clips.")
    if missing := set(COLUMNS) - set(rows[0]):
        raise UserError(f"{path} lacks the columns {', '.join(sorted(missing))}.")
    seen = set()
    for line, row in enumerate(rows, start=2):
        check_row(row, f"{path}, line {line}")
        if row["filename"] in seen:
            raise UserError(f"{path}, line {line} repeats {row['filename']}.")
        seen.add(row["filename"])
        row["fold"], row["target"] = int(row["fold"]), int(row["target"])
    return sorted(rows, key=lambda row: (row["target"], row["filename"]))


def check_row(row, place):
    """Raise a UserError for a row that is not ESC-50's."""
    for column in COLUMNS:
        if not row[column]:
            raise UserError(f"{place} has no {column}.")
    if row["fold"] not in map(str, FOLDS):
        raise UserError(f"{place} has the fold {row['fold']}, which must be 1 to 5.")
    if not row["target"].isdecimal():
        raise UserError(f"{place} has the target {row['target']}, which is no number.")
