"""`train.py --help`: every knob of a recipe, with its default and meaning."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from petl_modules.knobs import REQUIRED, Knob
from petl_modules.methods import method_table
from petl_modules.train.config import TASK, Config, recipe_config, split
from petl_modules.train.recipes import HPARAMS

USAGE = """usage: python train.py HPARAMS [--key=value ...]

Trains and tests a method on a data set. HPARAMS is the recipe's yaml, {hparams};
each of these options changes one of its settings. Lists are given as [a, b] or a,b;
null asks for the default. The same command goes on with a run that was interrupted."""


def show_help(prepare: Callable, arguments: list[str]) -> None:
    """Print the help of a recipe.

    Arguments
    ---------
    prepare : callable
        Of the recipe.
    arguments : list of str
        The rest of the command line: a yaml, if one is named.
    """
    yaml = next((a for a in arguments if a.endswith((".yaml", ".yml"))), None)
    path = Path(yaml) if yaml else Path(inspect.getfile(prepare)).parent / HPARAMS
    if not yaml and not path.exists():  # the prepare module is shared by recipes
        path = Path(sys.argv[0]).parent / HPARAMS
    console = Console(highlight=False)
    console.print(escape(USAGE.format(hparams=path)), soft_wrap=True)
    task = split([a for a in arguments if a.startswith("--")]).get(TASK)
    config = recipe_config(path, prepare, task=task)
    for title, knobs in sections(config).items():
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        for knob in knobs:
            table.add_row(f"--{knob.name}", escape(explained(knob, config)))
        console.print(f"\n[bold]{title}[/bold]")
        console.print(table)


def sections(config: Config) -> dict[str, list[Knob]]:
    """A config's knobs by section."""
    found: dict[str, list[Knob]] = {}
    for knob in config.knobs.values():
        found.setdefault(knob.section, []).append(knob)
    return found


def explained(knob: Knob, config: Config) -> str:
    """What a knob means, what it may be and what it is."""
    value = config[knob.name]
    kind = "" if knob.described == "a yaml value" else sentence(knob.described)
    return " ".join(filter(None, (knob.help, kind, default_of(knob, value))))


def default_of(knob: Knob, value: object) -> str:
    """What a knob is where nothing is said, in a sentence."""
    if value is not None:
        return f"It is {shown(value)} by default."
    owners = {
        name: entry.knobs[knob.name].default
        for name, entry in method_table().items()
        if knob.name in entry.knobs
    }
    if knob.section == "Method" and owners:
        return methods_of(owners)
    return "By default it is null." if knob.default is not REQUIRED else ""


# Helpers


def methods_of(owners: dict[str, object]) -> str:
    """Which methods have a knob, and with what default, in a sentence."""
    by_default: dict[str, list[str]] = {}
    for name, default in owners.items():
        by_default.setdefault(shown(default), []).append(name)
    parts = [f"{value} for {', '.join(names)}" for value, names in by_default.items()]
    return f"By default it is {'; '.join(parts)}."


def shown(value: object) -> str:
    """A value as the command line takes it."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def sentence(kind: str) -> str:
    """A kind in words as a sentence."""
    return f"It takes {kind}."
