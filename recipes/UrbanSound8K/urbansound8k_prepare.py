"""Entries of UrbanSound8K (Salamon, Jacoby and Bello, 2014)."""

from typing import Literal

from petl_modules import data
from petl_modules.data.splits import split_off
from petl_modules.errors import UserError

FOLDS = tuple(range(1, 11))
COLUMNS = ("slice_file_name", "fsID", "fold", "classID", "class")
LAYOUT = (
    "it must be the unpacked UrbanSound8K with metadata/UrbanSound8K.csv and audio/ "
    "(https://urbansounddataset.weebly.com/urbansound8k.html)."
)


def prepare_urbansound8k(
    data_folder: str,
    fold: int,
    valid_fraction: float = 0.1,
    seed: int = 0,
    choose: Literal["best", "last"] = "best",
) -> tuple[data.Splits, list[str]]:
    """Entries of one of the ten official folds.

    Fold k is the test set. The validation set comes out of the other nine, stratified
    by class; slices of one recording (`fsID`) stay on one side.

    Arguments
    ---------
    data_folder : str
        With metadata/UrbanSound8K.csv and audio/fold1 to audio/fold10.
    fold : int
        1 to 10.
    valid_fraction : float
        The part of the nine folds' clips that validates; 0 for none, as in the released
        code of arXiv 2312.03694: validation then shows the test fold.
    seed : int
        Draws the validation set.
    choose : str
        Which epoch comes out: the best by the validation set, or the last.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the classes are those of the csv, in
        the order of their classID.

    Raises
    ------
    UserError
        For a wrong folder or csv, or a choice of the epoch by the test fold.
    """
    table = "metadata/UrbanSound8K.csv"
    folder = data.data_folder_of("UrbanSound8K", data_folder, table, LAYOUT)
    if fold not in FOLDS:
        raise UserError(f"fold={fold} is none of UrbanSound8K's folds 1 to 10.")
    classes, sides = {}, {"train": {}, "test": {}}
    for place, row in data.read_table(folder / table, COLUMNS):
        own = data.whole_number(place, row, "fold", FOLDS[0], FOLDS[-1])
        classes[data.whole_number(place, row, "classID")] = row["class"]
        name = f"fold{own}/{row['slice_file_name']}"
        sides["test" if own == fold else "train"][name] = {
            "wav": str(data.inside(folder / "audio", name)),
            "label": row["class"],
            "group": row["fsID"],
        }
    if valid_fraction == 0 and choose == "best":
        raise UserError(
            "valid_fraction=0 leaves no clips to choose by: set --choose=last too."
        )
    train, valid = sides["train"], sides["test"]
    if valid_fraction != 0:
        train, valid = split_off(train, valid_fraction, seed, "valid")
    splits = {"train": train, "valid": valid, "test": sides["test"]}
    return splits, [classes[number] for number in sorted(classes)]
