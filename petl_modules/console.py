"""What a command line owes its user: little noise, whole sentences, and one of them
for a mistake."""

import argparse
import difflib
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from petl_modules.errors import UserError, why_not_written

# Seconds that others give the process that speaks: torchrun ends all with the first
LATER = 2.0

# What torch says where there is no memory left, on a CPU and on a GPU
NO_ROOM = re.compile("can't allocate memory|out of memory")
SMALLER = "lower batch_size or the length of clips, or take a smaller model"
# Libraries that not every installation has, and the extra of pyproject.toml they are of
EXTRAS = {
    **dict.fromkeys(("sklearn", "matplotlib", "tensorboard", "scipy"), "train"),
    **dict.fromkeys(("submitit", "optuna"), "train"),
    **dict.fromkeys(("g2p", "pyworld"), "tts"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript", "ctranslate2"), "export"),
    **dict.fromkeys(("num2words", "babel", "datasets"), "own"),
    "gradio": "demo",
    **dict.fromkeys(("fastapi", "uvicorn", "python_multipart"), "serve"),
}


def quiet() -> None:
    """Show the project's own messages, and of libraries only what matters."""
    for stream in (sys.stdout, sys.stderr):  # names that a terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if not speaks():
        logging.getLogger().setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(own_or_error)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    # transformers reads these when it is imported, which costs seconds: not here
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()


def speaks() -> bool:
    """Whether this process speaks for all that train together."""
    return os.environ.get("RANK", "0") == "0"


def own_or_error(record: logging.LogRecord) -> bool:
    """Whether a log record is the project's own, or an error."""
    return record.name.startswith("petl_modules") or record.levelno >= logging.ERROR


def command(module: str) -> NoReturn:
    """Run a command's `main` as the program: quietly, its mistakes in one sentence.

    Arguments
    ---------
    module : str
        Of the command; imported only now.
    """
    quiet()
    with refusing():
        sys.exit(import_module(module).main())


@contextmanager
def once() -> Iterator[None]:
    """Let one of several processes say what all of them refuse; the others end."""
    try:
        yield
    except UserError:
        if not speaks():
            time.sleep(LATER)
            sys.exit(2)
        raise


@contextmanager
def refusing() -> Iterator[None]:
    """End the program with one sentence, no traceback, for a user's mistake, and
    quietly where what it prints is read no further, as by `head`."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, not when Python ends
    except UserError as error:
        if not speaks():
            time.sleep(LATER)
        print(f"error: {one_line(error)}", file=sys.stderr)
        tell_torchrun(one_line(error))
        sys.exit(2)
    except BrokenPipeError:
        forget_stdout()
        sys.exit(1)
    except BaseException as error:
        if interrupted(error):
            if speaks():
                print("\nStopped. The same command goes on from here.", file=sys.stderr)
            sys.exit(130)
        if left_alone(error):
            time.sleep(LATER)
            sys.exit(1)
        if (said := why(error)) is None:
            raise
        forget_stdout()
        print(f"error: {said}.", file=sys.stderr)
        tell_torchrun(said)
        sys.exit(2)


def tell_torchrun(said: str) -> None:
    """Let torchrun, if it started this process, name this as the cause: it ends in a
    traceback of its own, whatever its processes say."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is not None:
        extra = {"timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(path).write_text(
                json.dumps({"message": {"message": said, "extraInfo": extra}}),
                encoding="utf-8",
            )


def why(error: BaseException) -> str | None:
    """What a machine refuses, in a sentence: memory, a place that somebody named, room
    on a disk, a library; None for what is nobody's mistake but ours."""
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and NO_ROOM.search(str(error))
    ):
        return f"There is not enough memory: {SMALLER}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        place = one_line(os.fsdecode(error.filename))
        return f"{place} cannot be used: {error.strerror}"
    if (said := why_not_written(error)) is not None:
        return f"What was to be written cannot be: {said}"
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get(str(error.name).partition(".")[0])
        return None if extra is None else missing(str(error.name), extra).rstrip(".")
    return None


def interrupted(error: BaseException | None) -> bool:
    """Whether the user stopped what an error comes from: an import that is broken off
    fails in its own way."""
    while error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
        error = error.__context__
    return isinstance(error, KeyboardInterrupt)


def left_alone(error: BaseException) -> bool:
    """Whether another of the processes that train together has ended, which says why
    itself."""
    return "RANK" in os.environ and "by peer" in str(error)


def forget_stdout() -> None:
    """Let what Python flushes at its end go nowhere, if nobody takes it."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):  # it is no file at all
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def missing(module: str, extra: str) -> str:
    """What to do about a library that is not installed."""
    return f"{module} is not installed: pip install -e .[{extra}] brings it."


def one_line(said: object) -> str:
    """A complaint or a name on one line, whatever it quotes: what would end the line or
    cannot be shown is escaped."""
    shown = (c if c.isprintable() else ascii(c)[1:-1] for c in str(said))
    return "".join(shown)


def progress_bar(
    items: Iterable | None = None, shown: bool = True, **knobs: Any
) -> Any:
    """A bar of progress that a terminal shows, and then forgets; elsewhere nothing.

    Arguments
    ---------
    items : iterable or None
        What to go through; None for a bar whose `update` is called.
    shown : bool
        Whether a terminal shows it.
    **knobs
        For `tqdm.tqdm`: desc, total, delay.

    Returns
    -------
    tqdm.tqdm
    """
    from tqdm import tqdm

    hidden = None if shown else True  # None asks whether there is a terminal
    settings = {"leave": False, "dynamic_ncols": True, **knobs}
    return tqdm(items, disable=hidden, **settings)


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose complaints are a `UserError` of one sentence, and which
    names the nearest option for one that there is not.

    Arguments
    ---------
    description : str
        What the command does, in whole sentences; paragraphs are kept.
    """

    def __init__(self, description: str | None, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", Paragraphs)
        super().__init__(
            description=description, allow_abbrev=False, add_help=False, **kwargs
        )
        self.add_argument(
            "-h", "--help", action="help", help="Show this text, and end."
        )

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """As argparse's.

        Raises
        ------
        UserError
        """
        args = sys.argv[1:] if args is None else list(args)
        for argument in args:
            name, is_set, value = argument.partition("=")
            if name == "--":
                break
            option = name.startswith("--")
            if not argument or (option and is_set and not value):
                said = f"{name} is" if option else "There is an argument that is"
                raise UserError(f"{said} empty: is a variable of the shell not set?")
            if option and name not in self._option_string_actions:
                self.refuse(name)
        found, others = self.parse_known_args(args, namespace)
        if others:
            raise UserError(f"{others[0]} is one too many; see {self.prog} --help.")
        return found

    def refuse(self, name: str) -> NoReturn:
        """Raise a UserError for an option that is none of this command's."""
        near = difflib.get_close_matches(name, self._option_string_actions, 1)
        hint = f"Did you mean {near[0]}?" if near else f"See {self.prog} --help."
        raise UserError(f"There is no option {name}. {hint}")

    def error(self, message: str) -> NoReturn:
        """What argparse calls for everything that it does not take."""
        raise UserError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


class Paragraphs(argparse.HelpFormatter):
    """Help whose description keeps its paragraphs."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split("\n\n")
        fill = super()._fill_text
        return "\n\n".join(fill(part, width, indent) for part in paragraphs)


def above_zero(text: str) -> int:
    """A whole number of at least 1, as the type of an option."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def port(text: str) -> int:
    """A port of TCP, as the type of an option."""
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is no port: they go from 1 to 65535")
    return int(text)


def positive(text: str) -> float:
    """A number above 0, as the type of an option."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return number


def share(text: str) -> float:
    """A number from 0 to 1, as the type of an option."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 1")
    return number
