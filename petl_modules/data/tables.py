"""The files that data sets come with: tables and lists of text."""

import codecs
import csv
import io
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from petl_modules.errors import UserError

logger = logging.getLogger(__name__)

# What ends a line of a file; str.splitlines() knows more, which people write in texts
LINE_END = re.compile(r"\r\n|\n|\r")
# Windows-1252's quotes and dashes, which careless converters leave in UTF-8 as if they
# had been Latin-1's control characters: MELD's apostrophes are such
MISREAD = {n: bytes([n]).decode("cp1252") for n in range(0x91, 0x98)}


def read_text(path: str | Path) -> str:
    """A text file that a data set comes with: in UTF-8, in UTF-16 with its mark, or, as
    older lists are, in Windows-1252, which takes in Latin-1.

    Raises
    ------
    UserError
        For a file that is missing or no text.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"The file {path} is missing.") from None
    except OSError as error:
        raise UserError(f"The file {path} cannot be read: {error.strerror}.") from None
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding == "cp1252":
            logger.info("%s is no UTF-8: it is read as Windows-1252.", path)
        return text.translate(MISREAD)
    raise UserError(
        f"{path} is damaged: it is no text in UTF-8, UTF-16 or Windows-1252."
    )


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file as of `read_text`, without empty ones and the blanks
    around them; raises what that raises."""
    lines = (line.strip() for line in LINE_END.split(read_text(path)))
    return [line for line in lines if line]


def read_table(path: str | Path, columns: Iterable[str]) -> list[tuple[str, dict]]:
    """The rows of a csv file that a data set comes with.

    Arguments
    ---------
    path : str or Path
        As of `read_text`.
    columns : iterable of str
        Columns that must be there, with a value in every row.

    Returns
    -------
    list of tuple
        `(place, row)`: file and line for messages, and the row as a dict.

    Raises
    ------
    UserError
        For a file that is missing or damaged, or lacks a column or value.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path} is damaged: it is no csv file ({error}).") from None
    if not rows:
        raise UserError(f"{path} lists no clips.")
    if missing := set(columns) - set(rows[0][1]):
        raise UserError(f"{path} lacks the columns {', '.join(sorted(missing))}.")
    for place, row in rows:
        for column in columns:
            if not row[column]:
                raise UserError(f"{place} has no {column}.")
    return rows


def read_records(
    path: str | Path, comment: str | None = None
) -> list[tuple[str, list[str]]]:
    """The rows of a csv file without a heading.

    Arguments
    ---------
    path : str or Path
        As of `read_text`.
    comment : str or None
        What lines begin with that are no rows.

    Returns
    -------
    list of tuple
        `(place, values)`; blanks around values are no part of them.

    Raises
    ------
    UserError
        For a file that is missing or damaged.
    """
    stream = io.StringIO(read_text(path), newline="")
    reader = csv.reader(stream, skipinitialspace=True)
    try:
        rows = [
            (f"{path}, line {reader.line_num}", [value.strip() for value in row])
            for row in reader
            if row and not (comment and row[0].startswith(comment))
        ]
    except csv.Error as error:
        raise UserError(f"{path} is damaged: it is no csv file ({error}).") from None
    return rows


def whole_number(
    place: str,
    row: Mapping[str, str],
    column: str,
    least: int = 0,
    most: int | None = None,
) -> int:
    """A column's whole number, in a row of `read_table`.

    Raises
    ------
    UserError
        If it is none, or out of range.
    """
    text = row[column]
    top = float("inf") if most is None else most
    if text.isdecimal() and least <= int(text) <= top:
        return int(text)
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise UserError(
        f"{place} has the {column} {text}, which must be a whole number {limits}."
    )
