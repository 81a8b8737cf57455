"""One row of a list of recordings: read, and looked at by itself."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petl_modules.data.class_folders import NAMES, split_of
from petl_modules.data.media import seconds_of
from petl_modules.data.own_columns import LEARNS, Columns
from petl_modules.data.reading import NEAR
from petl_modules.errors import UserError
from petl_modules.files import part_of


@dataclass(frozen=True)
class Row:
    """One recording, or a part of one.

    Attributes
    ----------
    place : str
        Where it is listed, for messages.
    key : str
        Its path in the folder, with its times: no other row has the same.
    file : Path
    start, end : float, float or None
        Seconds.
    label : str or None
    labels : tuple of str
    text : str or None
    split : str or None
        train, valid or test.
    group : str or None
    """

    place: str
    key: str
    file: Path
    start: float = 0.0
    end: float | None = None
    label: str | None = None
    labels: tuple[str, ...] = ()
    text: str | None = None
    split: str | None = None
    group: str | None = None

    @property
    def wav(self) -> str:
        """The recording, or the part of it, as manifests name it."""
        return part_of(self.file, self.start, self.end)

    @property
    def stop(self) -> float:
        """Where it ends; infinite where the recording does."""
        return math.inf if self.end is None else self.end


@dataclass(frozen=True)
class Reader:
    """Makes rows of values.

    Attributes
    ----------
    folder : Path
        In which all recordings must lie.
    columns : Columns
    named : dict
        As of `with_columns`.
    task : str or None
    """

    folder: Path
    columns: Columns
    named: dict[str, str | None]
    task: str | None

    def row(self, place: str, values: dict[str, Any]) -> Row:
        """A row, or a UserError that says what is wrong with it, and where."""
        said = {k: values[n] for k, n in self.named.items() if n and n in values}
        if "path" not in said:
            raise UserError(f"{place}, has no {self.columns.called('path')}.")
        file = self.file(place, str(said.pop("path")))
        key = file.relative_to(self.folder).as_posix()
        said = said | self.by_pattern(place, key)
        start, end = self.times(place, said, file)
        if start or end is not None:
            key = part_of(key, start, end)
        row = Row(
            place,
            key,
            file,
            start,
            end,
            text_or_none(said.get("label")),
            self.labels(place, said.get("labels")),
            text_or_none(said.get("text")),
            self.split(place, said.get("split")),
            text_or_none(said.get("group")),
        )
        self.refuse_unsaid(row)
        return row

    def file(self, place: str, name: str) -> Path:
        """The file that a row names."""
        path = Path(os.path.normpath(self.folder / Path(name).expanduser()))
        if self.folder not in path.parents:
            raise UserError(
                f"{place}, names a file outside {self.folder}, {name}: name the folder "
                "that holds all recordings by --clip_folder."
            )
        return path

    def by_pattern(self, place: str, key: str) -> dict[str, str]:
        """What a recording's path says."""
        pattern = self.columns.pattern
        if pattern is None:
            return {}
        match = pattern.search(key)
        if match is None:
            raise UserError(
                f"{place}: name_pattern={pattern.pattern} does not match {key}."
            )
        found = match.groupdict() or {"label": match.group(1)}
        return {name: value for name, value in found.items() if value}

    def times(
        self, place: str, said: dict[str, Any], file: Path
    ) -> tuple[float, float | None]:
        """Start and end of a row, in seconds."""
        found = {"start": 0.0, "end": None}
        for key in found.keys() & said.keys():
            try:
                found[key] = float(said[key])
            except (TypeError, ValueError):
                found[key] = math.nan
            if not 0 <= found[key] < math.inf:
                raise UserError(
                    f"{place}, has the {key} {said[key]}, where seconds from 0 on are "
                    "wanted."
                )
        start, end = found["start"], found["end"]
        if end is not None and end <= start:
            raise UserError(
                f"{place}, ends at {end:g} s, before its start {start:g} s."
            )
        if start or end is not None:
            there, last = seconds_of(file), start if end is None else end
            if there is not None and last > there + NEAR:
                raise UserError(
                    f"{place}, goes to {last:g} s, and {file.name} ends at "
                    f"{there:.2f} s."
                )
        return start, end

    def labels(self, place: str, said: Any) -> tuple[str, ...]:
        """The labels of a row, each once, in their order there."""
        if isinstance(said, str | int | float):
            said = str(said).split(self.columns.label_separator)
        if not isinstance(said, list | tuple | None):
            raise UserError(f"{place}, has labels that are no list of words.")
        labels = [str(label).strip() for label in said or ()]
        return tuple(dict.fromkeys(label for label in labels if label))

    def split(self, place: str, said: Any) -> str | None:
        """The split of a row."""
        if "split" not in self.named:
            return None
        name = self.columns.called("split")
        if said is None:
            raise UserError(f"{place}, has no {name}, where other rows have one.")
        split = split_of(str(said))
        if split is None:
            known = ", ".join(sorted(set().union(*NAMES.values())))
            raise UserError(
                f"{place}, has the {name} {said}, which is none of {known}."
            )
        return split

    def refuse_unsaid(self, row: Row) -> None:
        """Raise a UserError for a row without what is to be learnt; a recording
        without any of several labels is one that has none of them."""
        if self.task in (None, "tags"):
            return
        learns = LEARNS[self.task]
        if getattr(row, learns) is None:
            raise UserError(f"{row.place}, has no {self.columns.called(learns)}.")


# Helpers


def text_or_none(value: Any) -> str | None:
    """A value as text, None for nothing."""
    text = "" if value is None else str(value).strip()
    return text or None
