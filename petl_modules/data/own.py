"""One's own recordings from one list, whatever is learnt of them: a class, several
labels, a text, a voice."""

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from petl_modules.data.own_columns import Columns, with_columns
from petl_modules.data.own_rows import Reader, Row
from petl_modules.data.row_files import read_rows
from petl_modules.errors import UserError

logger = logging.getLogger(__name__)


@dataclass
class OwnData:
    """What a list of recordings holds, of which nothing is decoded yet.

    Attributes
    ----------
    name : str
        Of the list.
    rows : list of Row
        Those that can be used.
    complaints : list of str
        A sentence for each of the others.
    left_out : list of str
        What was left out because it was asked for.
    divided : bool
        Whether the list says the splits.
    """

    name: str
    rows: list[Row] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    divided: bool = False

    def refuse(self) -> None:
        """Raise a UserError with the first complaint, if there is one."""
        if self.complaints:
            others = len(self.complaints) - 1
            more = f" {others} more are wrong: petl data check says which."
            raise UserError(self.complaints[0] + (more if others else ""))

    def say_left_out(self) -> None:
        """Say in the log what was left out."""
        for said in self.left_out:
            logger.warning("Left out: %s", said)


def read_own(data: str | Path, columns: Columns, task: str | None = None) -> OwnData:
    """The recordings that a list names.

    Arguments
    ---------
    data : str or Path
        As of `petl_modules.data.row_files.read_rows`.
    columns : Columns
    task : str or None
        What will be learnt of them: every row must have it. None: whatever there is.

    Raises
    ------
    UserError
        For a list that cannot be read, or lacks a column.
    """
    listed = read_rows(data, columns.path_column)
    named = with_columns(listed, columns, task)
    home = Path(columns.clip_folder or listed.folder).expanduser()
    folder = Path(os.path.abspath(home))
    if not folder.is_dir():
        raise UserError(f"There is no clip_folder {columns.clip_folder}.")
    found = OwnData(listed.name, complaints=list(listed.complaints))
    found.divided = "split" in named
    reader = Reader(folder, columns, named, task)
    seen: dict[str, Row] = {}
    for place, values in listed.rows:
        try:
            row = reader.row(place, values)
            if row.key in seen:
                before = seen[row.key].place
                raise UserError(f"{row.place}, repeats {row.key} of {before}.")
        except UserError as complaint:
            found.complaints.append(str(complaint))
            continue
        seen[row.key] = row
        found.rows.append(row)
    found.complaints += overlaps(found.rows)
    if task in ("classification", "tags"):
        leave_out_rare(found, columns, task)
    if found.divided:
        found.complaints += unheard(found.rows, task)
    return found


# Helpers


def overlaps(rows: Iterable[Row]) -> list[str]:
    """A sentence for every row whose part of a recording another split hears too."""
    by_file: dict[Path, list[Row]] = {}
    for row in rows:
        by_file.setdefault(row.file, []).append(row)
    found = []
    for parts in by_file.values():
        latest: dict[str | None, Row] = {}  # of each split, what ends last so far
        for row in sorted(parts, key=lambda row: row.start):
            for split, other in latest.items():
                if split != row.split and row.start < other.stop:
                    found.append(
                        f"{row.place}, is in {row.split} and overlaps {other.place}, "
                        f"which is in {split}."
                    )
                    break
            if row.split not in latest or row.stop > latest[row.split].stop:
                latest[row.split] = row
    return found


def leave_out_rare(found: OwnData, columns: Columns, task: str) -> None:
    """Refuse, or leave out, classes or labels of too few clips."""
    count = Counter(label for row in found.rows for label in labels_of(row, task))
    rare = {label for label, clips in count.items() if clips < columns.min_clips}
    for label in sorted(rare):
        said = (
            f"{found.name}: {label} has {count[label]} clips, fewer than "
            f"min_clips={columns.min_clips}."
        )
        if columns.rare == "refuse":
            found.complaints.append(f"{said} Leave it out with --rare=drop.")
        else:
            found.left_out.append(said)
    if not rare or columns.rare == "refuse":
        return
    if task == "tags":
        found.rows = [
            replace(row, labels=tuple(x for x in row.labels if x not in rare))
            for row in found.rows
        ]
    else:
        found.rows = [row for row in found.rows if row.label not in rare]


def unheard(rows: Iterable[Row], task: str | None) -> list[str]:
    """A sentence for every held-out row with a class, label or voice that never
    trains."""
    if task not in ("classification", "tags", "tts"):
        return []
    rows = list(rows)
    heard = {x for row in rows if row.split == "train" for x in labels_of(row, task)}
    return [
        f"{row.place}, is in {row.split} with {label}, which no training row has."
        for row in rows
        if row.split != "train"
        for label in labels_of(row, task)
        if label not in heard
    ]


def labels_of(row: Row, task: str) -> tuple[str, ...]:
    """The class of a row, or its labels."""
    if task == "tags":
        return row.labels
    return () if row.label is None else (row.label,)
