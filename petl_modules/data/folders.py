"""Folders of data sets: what is in them, links included, and names for the clips."""

import os
from collections.abc import Iterator
from pathlib import Path

from petl_modules.data.reading import is_audio
from petl_modules.errors import UserError


def data_folder_of(
    recipe: str, folder: str | Path | None, needs: str, layout: str
) -> Path:
    """The data folder, with its full path.

    Arguments
    ---------
    recipe : str
        For the message.
    folder : str or None
    needs : str
        A file or folder that must be in it.
    layout : str
        What it should look like and where to get it.

    Raises
    ------
    UserError
        If it is not there or lacks what it needs; it explains the layout.
    """
    if folder is None:
        raise UserError(f"Pass --data_folder=FOLDER, where {recipe} is: {layout}")
    path = Path(str(folder)).expanduser()
    if not os.path.isdir(path):  # pathlib raises for a name that is too long
        raise UserError(f"The data folder {folder} does not exist: {layout}")
    if not (path / needs).exists():
        raise UserError(f"The data folder {folder} has no {needs}: {layout}")
    return path.resolve()


def inside(folder: str | Path, name: str) -> Path:
    """The path of a file that a data set names, which must lie in its folder.

    Raises
    ------
    UserError
        If the name leads out of the folder.
    """
    # by name, not by resolve(): data sets kept by git-annex or DVC are symbolic links,
    # and a folder of one may be a link too
    folder = Path(os.path.abspath(folder))
    path = Path(os.path.normpath(folder / name))
    if folder not in path.parents:
        raise UserError(f"The data set names a file outside its folder: {name}.")
    return path


def folders_in(folder: Path) -> list[Path]:
    """The folders right in a folder, and links to folders, sorted by name; none whose
    name begins with a dot."""
    return sorted(path for path in shown(folder) if path.is_dir())


def clips_in(folder: Path) -> list[Path]:
    """The recordings right in a folder, sorted by name.

    A link that leads nowhere is a recording too if its name says so: it is missing, and
    whoever reads it says that, where it would be lost in silence here.
    """
    return [path for path in shown(folder) if is_audio(path) and not path.is_dir()]


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files of a folder and of those in it, folder for folder, sorted by name.

    Links are followed, and those that lead nowhere are among the files; what begins
    with a dot is not.

    Arguments
    ---------
    folder : Path
    above : tuple of Path
        Where the folders that this one was found in really are.

    Raises
    ------
    UserError
        For a link that leads back to a folder that it lies in.
    """
    above = (*above, folder.resolve())
    for path in shown(folder):
        if not path.is_dir():
            yield path
        elif path.resolve() in above:
            raise UserError(f"The link {path} leads back to a folder that it lies in.")
        else:
            yield from files_below(path, above)


def clip_id(folder: Path, path: Path) -> str:
    """The id of a clip: its path in the data folder, which no other recording of the
    data set has, however the clips of other speakers are called."""
    return path.relative_to(folder).as_posix()


# Helpers


def shown(folder: Path) -> list[Path]:
    """What is right in a folder, but for what hides behind a dot, sorted."""
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except PermissionError:
        raise UserError(f"The folder {folder} may not be read.") from None
