"""One door to every command: `petl NAME`, or `python -m petl_modules.NAME`.

Each command is named here once, with the module that is imported only when it runs:
its `main(argv)` takes the arguments and returns the exit status.
"""

import difflib
import sys
from dataclasses import dataclass
from pathlib import Path

from petl_modules.console import command, refusing
from petl_modules.errors import UserError


@dataclass(frozen=True)
class Command:
    """A command of the door.

    Attributes
    ----------
    module : str
        Has a `main(argv)`.
    does : str
        In a few words, for the list of all.
    """

    module: str
    does: str


# By purpose, as `petl --help` lists them
PURPOSES = {
    "train": {
        "data": Command("petl_modules.data.check", "check a list of recordings"),
        "train": Command("petl_modules.train.start", "train and test by a recipe"),
        "describe": Command("petl_modules.train.describe", "what would train, no data"),
    },
    "use what was trained": {
        "predict": Command("petl_modules.use.predict", "labels or text of recordings"),
        "evaluate": Command("petl_modules.use.evaluate", "metrics on labelled clips"),
        "embed": Command("petl_modules.use.embeddings", "vectors, and their picture"),
        "verify": Command("petl_modules.use.verify", "whether two voices are one"),
        "synthesize": Command("petl_modules.tts.synthesize", "speech from text"),
        "demo": Command("petl_modules.use.demo", "a page in the browser"),
        "serve": Command("petl_modules.use.serve", "answers over HTTP"),
        "merge": Command("petl_modules.use.merge", "fold an adapter into its backbone"),
        "export": Command("petl_modules.use.export", "one ONNX file"),
        "push": Command("petl_modules.use.push", "an adapter to a hub"),
        "peft": Command(
            "petl_modules.use.peft_format", "an adapter for the library PEFT"
        ),
    },
    "many runs": {
        "benchmark": Command("petl_modules.grid.benchmark", "methods by data sets"),
        "report": Command("petl_modules.grid.report", "tables and plots of runs"),
        "search": Command("petl_modules.grid.search", "learning rate and size"),
        "speed": Command("petl_modules.grid.speed", "time and memory of the methods"),
    },
    "the embedded backbone": {
        "pretrain": Command("petl_modules.embedded.pretrain", "make it from Whisper"),
        "probe": Command("petl_modules.embedded.probe", "judge a backbone on ESC-50"),
    },
}
COMMANDS = {name: found for group in PURPOSES.values() for name, found in group.items()}


def main(argv: list[str] | None = None) -> None:
    """The door: `petl NAME ARGUMENTS`, or `petl --help`.

    Arguments
    ---------
    argv : list of str or None
        None for the program's own.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv else "--help"
    with refusing():
        if name in ("-h", "--help", "help"):
            print(overview())
            return
        start(known(name), f"petl {name}", argv[1:])


def run(name: str) -> None:
    """Run a command as `python -m petl_modules.NAME` does, and end.

    Arguments
    ---------
    name : str
        Of `COMMANDS`.
    """
    start(name, f"python -m petl_modules.{Path(sys.argv[0]).stem}", sys.argv[1:])


def overview() -> str:
    """All commands by their purpose, as text."""
    width = max(map(len, COMMANDS))
    parts = [
        "usage: petl COMMAND ...",
        "Parameter-efficient transfer learning of audio and speech Transformers.",
    ]
    for purpose, group in PURPOSES.items():
        rows = [f"  {name:{width}}  {found.does}" for name, found in group.items()]
        parts.append("\n".join([f"{purpose}:", *rows]))
    parts.append("`petl COMMAND --help` says what a command takes.")
    return "\n\n".join(parts)


# Helpers


def start(name: str, program: str, argv: list[str]) -> None:
    """Run a command, whose help calls it `program`, and end."""
    sys.argv = [program, *argv]
    command(COMMANDS[name].module)


def known(name: str) -> str:
    """`name`, if there is such a command.

    Raises
    ------
    UserError
        With the nearest one, for a name that there is not.
    """
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"Did you mean petl {near[0]}?" if near else "See petl --help."
        raise UserError(f"There is no command {name}. {hint}")
    return name
