"""Train and test a method by a recipe: `petl train RECIPE [--key=value ...]`.

RECIPE is a folder in recipes/, such as ESC50 or LibriSpeech/ASR, or the path of one.
This is `python train.py hparams/adapter.yaml --key=value ...` of that recipe; another
yaml file may be named after the recipe. Results go to results/ in this folder.
"""

import sys
from pathlib import Path

from petl_modules.errors import UserError
from petl_modules.train.recipes import HPARAMS, recipe_folder, start

USAGE = "usage: petl train RECIPE [HPARAMS.yaml] [--key=value ...]"


def main(argv: list[str] | None = None) -> None:
    """The command line.

    Arguments
    ---------
    argv : list of str or None
        None for the program's own.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{USAGE}\n\n{__doc__}\n`petl train RECIPE --help` lists its options.")
        return
    if argv[0].startswith("-"):
        raise UserError(f"Name the recipe before its options: {USAGE[7:]}.")
    recipe, rest = argv[0], argv[1:]
    start(recipe, [*hparams(recipe_folder(recipe), rest), *rest])


def hparams(folder: Path, arguments: list[str]) -> list[str]:
    """The recipe's own yaml, unless the arguments begin with one."""
    named = arguments and arguments[0].endswith((".yaml", ".yml"))
    return [] if named else [str(folder / HPARAMS)]
