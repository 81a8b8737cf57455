"""The files that data sets come with: tables, lists, and the names in them."""

import codecs
import csv
import os
from pathlib import Path

from petl_modules.errors import UserError


def inside(folder, name):
    """The path of a file that a data set names, which must lie in its folder.

    Raises
    ------
    UserError
        If the name leads out of the folder.
    """
    folder = Path(folder).resolve()
    # by name, not by resolve(): data sets kept by git-annex or DVC are symbolic links
    path = Path(os.path.normpath(folder / name))
    if folder not in path.parents:
        raise UserError(f"The data set names a file outside its folder: {name}.")
    return path


def read_table(path, columns):
    """The rows of a csv file that a data set comes with.

    Arguments
    ---------
    path : str or Path
        In UTF-8; any line ends.
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
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except FileNotFoundError:
        raise UserError(f"The file {path} is missing.") from None
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{path} is damaged: it is no csv file in UTF-8.") from None
    if not rows:
        raise UserError(f"{path} lists no clips.")
    if missing := set(columns) - set(rows[0][1]):
        raise UserError(f"{path} lacks the columns {', '.join(sorted(missing))}.")
    for place, row in rows:
        for column in columns:
            if not row[column]:
                raise UserError(f"{place} has no {column}.")
    return rows


def whole_number(place, row, column, least=0, most=None):
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


def read_lines(path):
    """The lines of a text file that a data set comes with, without empty ones; in
    UTF-8, or in UTF-16 with its mark.

    Raises
    ------
    UserError
        For a file that is missing or no text.
    """
    try:
        content = Path(path).read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        lines = content.decode("utf-16" if wide else "utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"The file {path} is missing.") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is damaged: it is no text in UTF-8 or UTF-16."
        ) from None
    return [line.strip() for line in lines if line.strip()]


def data_folder_of(recipe, folder, needs, layout):
    """The data folder as a Path, or a UserError that explains the layout.

    Arguments
    ---------
    recipe : str
        For the message.
    folder : str or None
    needs : str
        A file or folder that must be in it.
    layout : str
        What it should look like and where to get it.
    """
    if folder is None:
        raise UserError(f"Pass --data_folder=FOLDER, where {recipe} is: {layout}")
    path = Path(str(folder)).expanduser()
    if not path.is_dir():
        raise UserError(f"The data folder {folder} does not exist: {layout}")
    if not (path / needs).exists():
        raise UserError(f"The data folder {folder} has no {needs}: {layout}")
    return path.resolve()
