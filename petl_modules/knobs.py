"""Knobs: what functions and classes take, read from signatures and docstrings.

A knob stands in one place, the signature of what reads it: its name, kind, default and
range there, and its meaning in the docstring below it (numpy style, whole sentences).
"""

import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from petl_modules.kinds import check, described, understood

REQUIRED = inspect.Parameter.empty
HEADING = re.compile(r"^(Arguments|Attributes)\n-+\n", re.MULTILINE)
ANOTHER = re.compile(r"^\w[\w ]*\n-+$", re.MULTILINE)


@dataclass(frozen=True)
class Knob:
    """One setting.

    Attributes
    ----------
    name : str
    kind : type
        Of `petl_modules.kinds`; Any where nothing is said.
    default : object
        `REQUIRED` where there is none.
    help : str
        What it means, in whole sentences.
    section : str
        Under which it is shown.
    """

    name: str
    kind: Any = Any
    default: Any = field(default=REQUIRED)
    help: str = ""
    section: str = ""

    def check(self, value: Any, name: str | None = None) -> Any:
        """The value in the knob's kind, or a UserError; `name` is for it."""
        return check(name or f"{self.name}={value}", value, self.kind)

    def read(self, text: str) -> Any:
        """What a word of the command line means, checked."""
        return understood(f"--{self.name}={text}", text, self.kind)

    @property
    def described(self) -> str:
        """Its kind in words."""
        return described(self.kind)


Knobs = TypeVar("Knobs", bound="Section")


class Section:
    """A dataclass of knobs that are read together, as attributes."""

    @classmethod
    def of(cls: type[Knobs], values: dict[str, Any]) -> Knobs:
        """The section's knobs among all values; what is not there has its default."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


def knobs_of(factory: Callable | functools.partial, section: str = "") -> dict:
    """The knobs of a function, class or dataclass, by name.

    Arguments
    ---------
    factory : callable
        What a `functools.partial` has set already is no knob; an argument that is a
        `Section` is its knobs.
    section : str
        Under which they are shown.
    """
    function, bound = factory, {}
    while isinstance(function, functools.partial):
        function, bound = function.func, {**function.keywords, **bound}
    said: dict[str, str] = {}
    owners = inspect.getmro(function) if inspect.isclass(function) else (function,)
    for owner in reversed(owners):  # what takes what another does says only the rest
        said |= meanings(inspect.cleandoc(owner.__doc__ or ""))
    hints = kinds_of(function)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if name in bound or variadic or name == "self":
            continue
        kind = hints.get(name, Any)
        if isinstance(kind, type) and issubclass(kind, Section):
            found |= knobs_of(kind, section)
            continue
        default = parameter.default
        if isinstance(default, tuple):
            default = list(default)
        elif repr(default) == "<factory>":
            default = function.__dataclass_fields__[name].default_factory()
        found[name] = Knob(name, kind, default, said.get(name, ""), section)
    return found


def filled(function: Callable, values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a function among all values, by name; an argument that is a
    `Section` is made of its knobs."""
    hints = kinds_of(function)
    found = {}
    for name in inspect.signature(function).parameters:
        kind = hints.get(name)
        section = isinstance(kind, type) and issubclass(kind, Section)
        found[name] = kind.of(values) if section else values[name]
    return found


def renamed(knobs: dict, names: Iterable[tuple[str, str]]) -> dict:
    """Some of the knobs under other names: `(theirs, ours)` of each."""
    return {
        ours: replace(knobs[theirs], name=ours)
        for theirs, ours in names
        if theirs in knobs
    }


# Helpers


def kinds_of(function: Callable) -> dict:
    """The annotations of a callable's parameters, with their ranges."""
    holder = function
    if inspect.isclass(function) and not hasattr(function, "__dataclass_fields__"):
        holder = function.__init__
    return typing.get_type_hints(holder, include_extras=True)


def meanings(docstring: str) -> dict[str, str]:
    """What a numpy-style docstring says of each argument, in one line each."""
    found: dict[str, str] = {}
    for heading in HEADING.finditer(docstring):
        rest = docstring[heading.end() :]
        after = ANOTHER.search(rest)
        block = rest[: after.start()] if after else rest
        names: list[str] = []
        for line in block.splitlines():
            if line and not line[0].isspace():
                names = [name.strip() for name in line.partition(" :")[0].split(",")]
                found |= dict.fromkeys(names, "")
            elif line.strip():
                for name in names:
                    found[name] = f"{found[name]} {line.strip()}".strip()
    # as a yaml and the command line write it
    return {name: re.sub(r"\bNone\b", "null", said) for name, said in found.items()}
