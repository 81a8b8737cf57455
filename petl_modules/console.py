"""What a command line owes its user: little noise, and one sentence for a mistake."""

import logging
import os
import sys
import warnings
from contextlib import contextmanager
from importlib import import_module

from petl_modules.errors import UserError


def quiet():
    """Show the project's own messages, and of libraries only what matters."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if os.environ.get("RANK", "0") != "0":  # one process of several speaks
        logging.getLogger().setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(own_or_error)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def own_or_error(record):
    """Whether a log record is the project's own, or an error."""
    return record.name.startswith("petl_modules") or record.levelno >= logging.ERROR


def command(module: str) -> None:
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
def refusing():
    """End the program with one sentence, no traceback, for a user's mistake, and
    quietly where what it prints is read no further, as by `head`."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, not when Python ends
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # what Python flushes at its end must go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
