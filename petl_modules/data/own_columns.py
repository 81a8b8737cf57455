"""What the columns of a list of recordings hold, and what they are called."""

import re
from dataclasses import dataclass
from typing import Literal

from petl_modules.data.row_files import RowFile
from petl_modules.errors import UserError
from petl_modules.kinds import PositiveInt
from petl_modules.knobs import Section

OwnTask = Literal["classification", "tags", "ctc", "seq2seq", "tts"]
# The column that a task learns from
LEARNS = {
    "classification": "label",
    "tags": "labels",
    "ctc": "text",
    "seq2seq": "text",
    "tts": "text",
}
FROM_NAMES = ("label", "labels", "text", "split", "group")
KEYS = ("path", *FROM_NAMES, "start", "end")


@dataclass(frozen=True)
class Columns(Section):
    """What the columns of a list of recordings are called, and how it is read.

    Arguments
    ---------
    path_column : str
        The column of the recordings' paths, relative to the list or to clip_folder.
    label_column : str
        The column of the class, or of the voice for tts.
    labels_column : str
        The column of several labels.
    text_column : str
        The column of what is said.
    split_column : str
        The column of train, valid or test; without it clips are split by group.
    group_column : str
        The column of what must not fall on two sides, such as the speaker.
    start_column, end_column : str
        The columns of seconds between which a recording is used.
    label_separator : str
        What parts several labels.
    name_pattern : str or None
        A regular expression searched in each path, whose groups stand for columns:
        (?P<label>...), labels, text, split or group; one group without a name is the
        label.
    clip_folder : str or None
        In which all recordings lie; null for the list's own folder.
    min_clips : int
        Clips that a class or label must have.
    rare : str
        Whether a class or label with fewer is refused, or dropped.
    """

    path_column: str = "path"
    label_column: str = "label"
    labels_column: str = "labels"
    text_column: str = "text"
    split_column: str = "split"
    group_column: str = "group"
    start_column: str = "start"
    end_column: str = "end"
    label_separator: str = ","
    name_pattern: str | None = None
    clip_folder: str | None = None
    min_clips: PositiveInt = 1
    rare: Literal["refuse", "drop"] = "refuse"

    def called(self, key: str) -> str:
        """The column of path, label, ..."""
        return getattr(self, f"{key}_column")

    @property
    def pattern(self) -> re.Pattern | None:
        """What is searched in paths.

        Raises
        ------
        UserError
            For what is no regular expression, or has no group of a known name.
        """
        if self.name_pattern is None:
            return None
        try:
            found = re.compile(self.name_pattern)
        except re.error as error:
            raise UserError(
                f"name_pattern={self.name_pattern} is no regular expression: {error}."
            ) from None
        known = set(found.groupindex) <= set(FROM_NAMES)
        if not known or not (found.groupindex or found.groups == 1):
            raise UserError(
                f"name_pattern={self.name_pattern} must have groups named "
                f"{', '.join(FROM_NAMES)}, such as (?P<label>[a-z]+), or one group in "
                "parentheses, which is the label."
            )
        return found


def with_columns(
    listed: RowFile, columns: Columns, task: str | None
) -> dict[str, str | None]:
    """The columns that a list has, by what they hold; None where a pattern finds it.

    Raises
    ------
    UserError
        For a column that is not there, but asked for.
    """
    named: dict[str, str | None] = {}
    patterned = columns.pattern
    for key in KEYS:
        name = columns.called(key)
        if name not in listed.columns:
            name = listed.renamed.get(key, name)
        if patterned is not None and key in (patterned.groupindex or ("label",)):
            named[key] = None
        elif name in listed.columns:
            named[key] = name
        elif name != getattr(Columns(), f"{key}_column"):
            raise lacking(listed, key, name)
    needed = ["path"] if task is None else ["path", LEARNS[task]]
    for key in needed:
        if key not in named:
            raise lacking(listed, key, columns.called(key))
    return named


def lacking(listed: RowFile, key: str, name: str) -> UserError:
    """What to say of a column that is not there."""
    there = ", ".join(listed.columns) or "none"
    other = "" if key == "path" else ", or find it in paths with --name_pattern"
    return UserError(
        f"{listed.name} has no column {name}, but {there}: name the one of the {key} "
        f"by --{key}_column{other}."
    )
