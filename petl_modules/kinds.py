"""Kinds of values that knobs may have: types with their ranges, checked in one place.

A function says what it takes by its signature, such as `rank: PositiveInt | None`; the
command line, yaml files, adapter files and the API check values against it.
"""

import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ruamel.yaml import YAML, YAMLError

from petl_modules.errors import UserError


@dataclass(frozen=True)
class Range:
    """Between what a number lies.

    Attributes
    ----------
    least, most : float or None
        The ends, which belong to it.
    above, below : float or None
        Ends that do not.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a number lies in it."""
        return not (
            (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        )

    def __str__(self) -> str:
        low = f"{self.least} or more" if self.least is not None else ""
        if self.above is not None:
            low = f"above {self.above}"
        high = "" if self.below is None else f"below {self.below}"
        if self.most is not None:
            high = f"at most {self.most}"
        if self.least is not None and self.most is not None:
            return f"from {self.least} to {self.most}"
        return " and ".join(filter(None, (low, high)))


@dataclass(frozen=True)
class Items:
    """How many items a list has, and whether each stands there once.

    Attributes
    ----------
    least : int
    most : int or None
    distinct : bool
    """

    least: int = 1
    most: int | None = None
    distinct: bool = False

    def holds(self, value: Sequence) -> bool:
        """Whether a list is so."""
        enough = len(value) >= self.least
        few = self.most is None or len(value) <= self.most
        return enough and few and not (self.distinct and len({*value}) < len(value))

    def __str__(self) -> str:
        if self.least == self.most:
            return f"exactly {self.least} of them"
        some = f"{self.least} or more of them"
        return f"{some}, each once" if self.distinct else some


PositiveInt = Annotated[int, Range(least=1)]
Size = Annotated[int, Range(1, 65_536)]  # of a tensor's axis
Count = Annotated[int, Range(least=0)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Fraction = Annotated[float, Range(0, 1)]
Probability = Annotated[float, Range(least=0, below=1)]  # of dropout: 1 leaves nothing
Rate = Annotated[float, Range(above=0, most=1e30)]  # steps that float32 holds
Reduction = Annotated[float, Range(1, 65_536)]  # of a size, to a bottleneck's width
Seconds = Annotated[float, Range(0.05, 86_400)]
Layers = Annotated[list[int], Items(1)]
Names = Annotated[list[str], Items(1)]
Parts = Annotated[list[Literal["encoder", "decoder"]], Items(1)]

# What ruamel says of a text that is no yaml, or of one that is too deep for it
NO_YAML = (YAMLError, ValueError, RecursionError)
NAMES = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
PLURALS = {int: "whole numbers", float: "numbers", bool: "True or False", str: "words"}


def check(name: str, value: Any, kind: Any) -> Any:
    """A value as its kind has it.

    Arguments
    ---------
    name : str
        For the complaint, such as `rank=0`.
    value : object
    kind : type
        Of an annotation: `int`, `float`, `bool`, `str`, `Literal`, `list` of these,
        any of them `Annotated` with `Range` or `Items`, or a union with None.

    Returns
    -------
    object
        Whole numbers where the kind is float become floats.

    Raises
    ------
    UserError
        Saying what the value must be.
    """
    options = options_of(kind)
    if value is None and type(None) in options:
        return None
    options = [option for option in options if option is not type(None)]
    if not options:
        return value
    if value is None:
        raise UserError(f"{name.partition('=')[0]} must have a value.")
    for option in options:
        fits, found = fitted(value, option)
        if fits:
            return found
    if type(value) is float and not math.isfinite(value):
        raise UserError(f"{name} must be finite.")
    raise UserError(f"{name} must be {described(kind)}.")


def understood(name: str, text: str, kind: Any) -> Any:
    """What a word of the command line means for a knob of a kind, checked.

    Text is taken as it stands; lists may be given as one word, as words parted by
    commas, or in yaml's brackets; the rest is yaml. null asks for the default.
    """
    options = options_of(kind)
    if text in ("null", "~", ""):
        return check(name, None, kind)
    if any(base_of(option) in (str, Literal) for option in options):
        return check(name, text, kind)
    lists = [option for option in options if base_of(option) is list]
    if lists:
        return check(name, items_of(name, text, lists[0]), kind)
    return check(name, read_yaml(name, text), kind)


def described(kind: Any) -> str:
    """A kind in words, such as `a whole number, 1 or more`."""
    shown = [o for o in options_of(kind) if base_of(o) in (*NAMES, list, Literal)]
    words = [describe_one(option) for option in shown]
    return " or ".join(words) or "a yaml value"


def takes_none(kind: Any) -> bool:
    """Whether null is a value of a kind."""
    return kind is Any or type(None) in options_of(kind)


# Helpers


def options_of(kind: Any) -> list:
    """The members of a union; of Any, none."""
    if kind is Any:
        return []
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return [one for arg in typing.get_args(kind) for one in options_of(arg)]
    return [kind]


def base_of(option: Any) -> Any:
    """int, float, bool, str, list or Literal."""
    if typing.get_origin(option) is Annotated:
        option = typing.get_args(option)[0]
    return typing.get_origin(option) or option


def plain_types(options: list) -> list:
    """The bases of several options."""
    return [base_of(option) for option in options]


def fitted(value: Any, option: Any) -> tuple[bool, Any]:
    """Whether a value is of an option, and the value as that has it."""
    limits: tuple = ()
    if typing.get_origin(option) is Annotated:
        option, *rest = typing.get_args(option)
        limits = tuple(rest)
    base = base_of(option)
    if base is Literal:
        return value in typing.get_args(option), value
    if base is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            return False, value
    if base is list:
        if isinstance(value, str):  # one item may stand for a list of one
            value = items_of(value, value, option)
        elif type(value) in (int, float):
            value = [value]
        if not isinstance(value, list | tuple):
            return False, value
        (inner,) = typing.get_args(option) or (Any,)
        found = [fitted_any(item, inner) for item in value]
        if not all(fits for fits, _ in found):
            return False, value
        value = [item for _, item in found]
    elif base is str and type(value) is int:  # of a yaml, such as 2024
        value = str(value)
    elif type(value) is not base or (base is str and not value):
        return False, value
    if base is float and not math.isfinite(value):
        return False, value
    return all(limit.holds(value) for limit in limits), value


def fitted_any(value: Any, kind: Any) -> tuple[bool, Any]:
    """As `fitted`, for a union."""
    tries = [fitted(value, option) for option in options_of(kind)] or [(True, value)]
    return next((found for found in tries if found[0]), tries[0])


def describe_one(option: Any) -> str:
    """One member of a union in words."""
    limits: tuple = ()
    if typing.get_origin(option) is Annotated:
        option, *rest = typing.get_args(option)
        limits = tuple(rest)
    base = base_of(option)
    if base is Literal:
        return choices(option)
    if base is list:
        (inner,) = typing.get_args(option) or (Any,)
        words = describe_plural(inner)
        return ", ".join([f"a list of {words}", *map(str, limits)])
    return ", ".join([NAMES[base], *map(str, limits)])


def choices(option: Any) -> str:
    """The values of a Literal in words."""
    *others, last = map(str, typing.get_args(option))
    return f"{', '.join(others)} or {last}" if others else last


def describe_plural(kind: Any) -> str:
    """The items of a list in words."""
    option = next(iter(options_of(kind)), Any)
    limits: tuple = ()
    if typing.get_origin(option) is Annotated:
        option, *rest = typing.get_args(option)
        limits = tuple(rest)
    if base_of(option) is Literal:
        return choices(option)
    words = PLURALS.get(base_of(option), "values")
    return " ".join([words, *map(str, limits)])


def items_of(name: str, text: str, kind: Any) -> list:
    """The items of a list that was given as text."""
    if typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    (inner,) = typing.get_args(kind) or (Any,)
    words = any(base in (str, Literal) for base in plain_types(options_of(inner)))
    if text.lstrip().startswith("["):
        # words stay words: off is no False, 5 no number
        value = read_yaml(name, text, "base" if words else "safe")
        return value if isinstance(value, list) else [value]
    found = [item.strip() for item in text.split(",")]
    return found if words else [read_yaml(name, item) for item in found]


def read_yaml(name: str, text: str, kind: str = "safe") -> Any:
    """A yaml value."""
    try:
        return YAML(typ=kind, pure=True).load(text)
    except NO_YAML:
        raise UserError(f"{name} is no yaml value.") from None
