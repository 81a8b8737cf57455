"""Where recipes are, and how one is started by its name."""

import runpy
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from petl_modules.errors import UserError

RECIPES = Path(__file__).parents[2] / "recipes"
TRAIN, HPARAMS = "train.py", Path("hparams") / "adapter.yaml"


def recipe_folder(recipe: str) -> Path:
    """A recipe's folder.

    Arguments
    ---------
    recipe : str
        A folder in `recipes/`, such as `LibriSpeech/ASR`, or a path.

    Raises
    ------
    UserError
        If there is none.
    """
    own = RECIPES / recipe
    folder = own if own.is_dir() else Path(recipe).resolve()
    if not (folder / TRAIN).is_file():
        raise UserError(f"There is no recipe {recipe}: no {TRAIN} is there.")
    return folder


def start(recipe: str, arguments: list[str]) -> None:
    """Run a recipe's train.py in this process, as a user would in its folder.

    Arguments
    ---------
    recipe : str
        As for `recipe_folder`.
    arguments : list of str
        Of train.py; its yaml first.
    """
    folder = recipe_folder(recipe)
    sys.argv = [str(folder / TRAIN), *arguments]
    sys.path.insert(0, str(folder))  # where its prepare module is
    runpy.run_path(sys.argv[0], run_name="__main__")


@cache
def prepare_of(folder: Path) -> Callable:
    """The function by which a recipe's train.py reads its data set; training does not
    begin."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        names = runpy.run_path(str(folder / TRAIN), run_name="recipe")
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if name.endswith("_prepare"):  # recipes may call theirs by one name
                del sys.modules[name]
    return next(value for name, value in names.items() if name.startswith("prepare"))
