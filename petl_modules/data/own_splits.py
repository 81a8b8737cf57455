"""Which of one's own recordings train, and which are held out."""

from dataclasses import dataclass
from typing import Any

from petl_modules.data.manifests import SPLITS, Splits
from petl_modules.data.own import OwnData
from petl_modules.data.own_rows import Row
from petl_modules.data.splits import Entries, folds_of, split_off
from petl_modules.errors import UserError
from petl_modules.kinds import Fraction
from petl_modules.knobs import Section


@dataclass(frozen=True)
class Division(Section):
    """How clips are split where the list does not say it.

    Arguments
    ---------
    valid_fraction, test_fraction : float
        Of the clips, for splits that are not given.
    folds : list of int or None
        The numbers of folds, from 1 on: each tests once, and the one before it
        validates; null for one split.
    fold : int or None
        The one that tests.
    seed : int
        Of the split.
    """

    valid_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2
    folds: list[int] | None = None
    fold: int | None = None
    seed: int = 0

    def of_rows(self, own: OwnData, task: str) -> Splits:
        """The entries of a list by split: without parting a group, and stratified.

        Clips of one group, or parts of one recording, are on one side.

        Raises
        ------
        UserError
            For a list that says some other split than is asked for, or too few clips.
        """
        splits: dict[str, Entries] = {}
        for row in own.rows:
            splits.setdefault(row.split or "train", {})[row.key] = entry_of(row, task)
        if not splits.get("train"):
            raise UserError(f"{own.name} has no clips to train on.")
        if self.fold is not None:
            return self._folds(own, splits)
        left = 1.0
        for name, fraction in (
            ("test", self.test_fraction),
            ("valid", self.valid_fraction),
        ):
            if name in splits:
                continue
            if not 0 < fraction < left:
                raise UserError(
                    f"{name}_fraction={fraction} must be above 0, and leave clips to "
                    "train on."
                )
            rest, part = split_off(splits["train"], fraction / left, self.seed, name)
            splits["train"], splits[name] = rest, part
            left -= fraction
        return {name: splits[name] for name in SPLITS}

    def _folds(self, own: OwnData, splits: dict[str, Entries]) -> Splits:
        count = len(self.folds or ())
        if sorted(self.folds or ()) != list(range(1, count + 1)) or count < 3:
            raise UserError(
                f"folds={self.folds} must be the numbers from 1 to 3 or more."
            )
        if len(splits) > 1:
            raise UserError(
                f"{own.name} says the splits, so that there are no folds: give "
                "--split_column another name, or no folds."
            )
        return folds_of(splits["train"], count, int(self.fold or 1), self.seed)


def entry_of(row: Row, task: str) -> dict[str, Any]:
    """A row as an entry of a manifest."""
    entry: dict[str, Any] = {"wav": row.wav}
    if task == "classification":
        entry["label"] = row.label
    elif task == "tags":
        entry["labels"] = list(row.labels)
    else:
        entry["text"] = row.text
    if task == "tts":
        entry["speaker"] = row.label or VOICE
        # what several voices read is on one side
        entry["group"] = (row.text or "").lower()
    elif row.group is not None:
        entry["group"] = row.group
    elif row.start or row.end is not None:
        entry["group"] = str(row.file)
    return entry


VOICE = "voice"  # of recordings that name none
