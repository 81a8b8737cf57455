"""Lists of recordings in any form that people have them: csv and tsv tables, JSON,
folders of the library `datasets`, and plain folders. Each becomes rows of values by
column; what a row lacks is not in it."""

import csv
import io
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petl_modules.data.class_folders import class_of, split_folders
from petl_modules.data.clips import cache_folder
from petl_modules.data.folders import clip_id, files_below
from petl_modules.data.reading import is_audio
from petl_modules.data.tables import read_text
from petl_modules.errors import UserError
from petl_modules.files import digest, listing

logger = logging.getLogger(__name__)

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
QUOTED = re.compile(r'"(?:[^"]|"")*"')
JSON = (".json", ".jsonl", ".ndjson")
# A table that lies beside its recordings, as the library datasets names it
METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
FILE_NAME = "file_name"  # its column of paths
SAVED = ("dataset_dict.json", "dataset_info.json")  # of `datasets`' save_to_disk
PATH, LABEL, SPLIT = "path", "label", "split"  # columns of plain folders


@dataclass
class RowFile:
    """What a list of recordings holds.

    Attributes
    ----------
    name : str
        Of the list, for messages.
    folder : Path
        To which paths are relative.
    columns : list of str
    rows : list of tuple
        `(place, values)`: where a row stands, for messages, and its values by column.
    complaints : list of str
        What is wrong with single rows, which are not among `rows`.
    renamed : dict
        Columns that go by another name in such lists.
    """

    name: str
    folder: Path
    columns: list[str]
    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)


def read_rows(data: str | Path, path_column: str = PATH) -> RowFile:
    """The rows of a list of recordings.

    Arguments
    ---------
    data : str or Path
        A csv or tsv table, with commas, tabs, semicolons or bars between its columns;
        JSON, one object a line or one list of them; a folder that the library
        `datasets` has saved, or one with a metadata.csv; or a folder of recordings, of
        which the folder that one lies in is its label, and train, valid and test may be
        folders above them.
    path_column : str
        By which the separator of a table is found.

    Raises
    ------
    UserError
        For data that is not there or in none of these forms, or has no rows.
    """
    path = Path(str(data)).expanduser()
    if path.is_dir():
        found = read_folder(path)
    elif path.suffix.lower() in JSON:
        found = read_json_rows(path)
    else:
        found = read_separated(path, path_column)
    if not found.rows and not found.complaints:
        raise UserError(f"{path} lists no recordings.")
    return found


# Tables


def read_separated(path: Path, path_column: str) -> RowFile:
    """A table whose first line names its columns."""
    text = read_text(path)
    heading = next((line for line in text.splitlines() if line.strip()), "")
    separator = separator_of(heading, path_column)
    # what people write between tabs has quotes of its own
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    stream = io.StringIO(text, newline="")
    reader = csv.reader(stream, delimiter=separator, quoting=quoting, strict=True)
    found = RowFile(str(path), path.parent, [])
    try:
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            place = f"{path}, line {reader.line_num}"
            values = [unquoted(value.strip()) for value in values]
            if not found.columns:
                found.columns = unique(values, path)
            elif len(values) != len(found.columns):
                found.complaints.append(
                    f"{place}, parts into {len(values)}, where the first line has "
                    f"{len(found.columns)} columns parted by {SEPARATORS[separator]}."
                )
            else:
                row = dict(zip(found.columns, values, strict=True))
                found.rows.append((place, {k: v for k, v in row.items() if v}))
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}, cannot be read as a table ({error})."
        ) from None
    return found


def unquoted(value: str) -> str:
    """A value without the quotes that a table has around it."""
    if not QUOTED.fullmatch(value):
        return value
    return value[1:-1].replace('""', '"')


def separator_of(heading: str, path_column: str) -> str:
    """What parts the columns of a table whose first line is `heading`."""
    for separator in SEPARATORS:
        names = [name.strip().strip('"') for name in heading.split(separator)]
        if len(names) > 1 and path_column in names:
            return separator
    return max(SEPARATORS, key=heading.count)


def unique(columns: list[str], path: Path) -> list[str]:
    """The columns, unless one is there twice."""
    for name in columns:
        if columns.count(name) > 1:
            raise UserError(f"{path} has two columns with the name {name!r}.")
    return columns


def read_json_rows(path: Path) -> RowFile:
    """JSON: one object a line, or one list of them."""
    text, found = read_text(path), RowFile(str(path), path.parent, [])
    for place, said in json_values(text, path):
        try:
            row = json.loads(said) if isinstance(said, str) else said
        except ValueError as error:
            found.complaints.append(f"{place}, is no JSON ({error}).")
            continue
        if not isinstance(row, dict):
            found.complaints.append(f"{place}, is no object of values by column.")
            continue
        found.rows.append(
            (place, {k: v for k, v in row.items() if v not in ("", None)})
        )
        found.columns += [name for name in row if name not in found.columns]
    return found


def json_values(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """`(place, value)` of a list, or `(place, line)`."""
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path} is no JSON ({error}).") from None
        for number, value in enumerate(values, start=1):
            yield f"{path}, object {number}", value
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line


# Folders


def read_folder(folder: Path) -> RowFile:
    """A folder: saved by `datasets`, with a table in it, or of recordings alone."""
    if any((folder / name).is_file() for name in SAVED):
        return read_saved(folder)
    for name in METADATA:
        if (folder / name).is_file():
            return read_metadata(folder / name)
    parts = split_folders(folder) or {None: folder}
    found = RowFile(str(folder), folder, [])
    for split, home in parts.items():
        for path in files_below(home):
            if is_audio(path):
                values = {PATH: str(path), LABEL: class_of(home, path), SPLIT: split}
                row = {key: value for key, value in values.items() if value}
                found.rows.append((clip_id(folder, path), row))
    found.columns = list(dict.fromkeys(name for _, row in found.rows for name in row))
    return found


def read_metadata(path: Path) -> RowFile:
    """The table of a folder as the library `datasets` builds them."""
    found = read_rows(path, FILE_NAME)
    if FILE_NAME in found.columns and PATH not in found.columns:
        found.renamed[PATH] = FILE_NAME
    return found


def read_saved(folder: Path) -> RowFile:
    """What the library `datasets` saved by `save_to_disk`: its splits are a column,
    classes go by their names, and sound that lies in its files is written into files of
    its own, in the cache of this user, once."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{folder} is a folder of the library datasets: pip install -e .[own]"
        ) from None
    try:
        whole = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever Arrow makes of damaged files
        raise UserError(f"{folder} cannot be read by datasets: {error}.") from None
    parts = whole if isinstance(whole, dict) else {None: whole}
    found = RowFile(str(folder), folder, [])
    for split, part in parts.items():
        sounds = [n for n, f in part.features.items() if isinstance(f, datasets.Audio)]
        for name in sounds:
            part = part.cast_column(name, datasets.Audio(decode=False))
            if PATH not in part.column_names:
                found.renamed[PATH] = name
        own = {n: names_of(f) for n, f in part.features.items()}
        home = cache_folder() / "datasets" / digest(listing(folder.glob("**/*")))[:16]
        for number, row in enumerate(part):
            place = f"{folder}, {split or 'row'} {number + 1}"
            for name in sounds:
                row[name] = sound_file(row[name], home / f"{split}_{number}")
            values = {n: named(v, own[n]) for n, v in row.items() if v is not None}
            if split is not None:
                values.setdefault(SPLIT, split)
            found.rows.append((place, values))
        found.columns += [n for n in [*own, SPLIT] if n not in found.columns]
    if found.renamed:  # files of the cache lie in no folder of the user's
        found.folder = Path("/")
    return found


def names_of(feature: Any) -> list[str] | None:
    """The names of a column's classes, where it is one of numbers for classes."""
    inner = getattr(feature, "feature", feature)
    return getattr(inner, "names", None)


def named(value: Any, names: list[str] | None) -> Any:
    """A number or a list of them by the names of classes."""
    if names is None:
        return value
    if isinstance(value, list):
        return [names[item] for item in value]
    return names[value]


def sound_file(sound: dict[str, Any] | None, stem: Path) -> str | None:
    """The file of a sound that `datasets` holds, which is made if need be."""
    if sound is None:
        return None
    if sound.get("bytes") is None:
        return sound.get("path")
    path = stem.with_suffix(Path(sound.get("path") or "").suffix or ".wav")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(sound["bytes"])
        partial.replace(path)
    return str(path)
