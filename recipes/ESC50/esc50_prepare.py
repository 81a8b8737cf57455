"""Manifests for ESC-50 (Piczak, 2015), https://github.com/karolpiczak/ESC-50."""

import csv

from petl_modules import data
from petl_modules.errors import UserError

FOLDS = (1, 2, 3, 4, 5)
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
    valid_fold = FOLDS[fold - 2]
    splits = {name: {} for name in data.SPLITS}
    for row in rows:
        name = {fold: "test", valid_fold: "valid"}.get(row["fold"], "train")
        splits[name][row["filename"].rsplit(".", 1)[0]] = {
            "wav": str(data.inside(folder / "audio", row["filename"])),
            "label": row["category"],
        }
    splits["train"] = data.few_shot(splits["train"], few_shot, seed)
    labels = list(dict.fromkeys(row["category"] for row in rows))
    clips = [entry["wav"] for part in splits.values() for entry in part.values()]
    made_from = {"files": data.listing(clips)}
    return data.prepared(save_folder, made_from, splits, labels, skip_broken)


def read_rows(path):
    """The rows of esc50.csv, by target and file name."""
    with open(path, encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = {"filename", "fold", "target", "category"}
    missing = columns - set(rows[0] if rows else ())
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(sorted(missing))}.")
    try:
        for row in rows:
            row["fold"], row["target"] = int(row["fold"]), int(row["target"])
    except (TypeError, ValueError):
        raise UserError(
            f"{path} has a row whose fold or target is no number: {row['filename']}."
        ) from None
    return sorted(rows, key=lambda row: (row["target"], row["filename"]))
