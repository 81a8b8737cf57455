"""The methods by name, each with its knobs: `hparams/methods.yaml` and the signatures
of the factories that it names."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml

from petl_modules.errors import UserError
from petl_modules.knobs import Knob, knobs_of
from petl_modules.methods.base import Method

TABLE = Path(__file__).parent.parent / "hparams" / "methods.yaml"
# What a method itself tells its modules
SIZES = ("hidden_size", "out_features")


@dataclass(frozen=True)
class Entry:
    """What is known of a method by its name.

    Attributes
    ----------
    name : str
    factory : callable
        Builds the `Method` from its knobs.
    lr, lr_after_head_start : float
        Of a head that knows nothing, and of one that starts from a linear probe's.
    knobs : dict
        Its `petl_modules.knobs.Knob` by name, with the method's own defaults.
    search : dict
        The sizes that a search tries, by knob.
    filled : callable or None
        Adds to knobs what its modules take where nothing is said.
    """

    name: str
    factory: Callable[..., Method]
    lr: float
    lr_after_head_start: float
    knobs: dict[str, Knob]
    search: dict[str, list]
    filled: Callable[[dict], dict] | None = None

    def check(self, knobs: dict[str, Any]) -> dict[str, Any]:
        """The knobs that are not None, checked.

        Raises
        ------
        UserError
            For a knob that the method has no use for, or a value that is none of its.
        """
        given = {key: value for key, value in knobs.items() if value is not None}
        useless = sorted(set(given) - set(self.knobs))
        if useless:
            raise UserError(
                f"The method {self.name} has no use for {', '.join(useless)}; its "
                f"knobs are: {', '.join(self.knobs) or 'none'}."
            )
        if {"rank", "reduction_rate"} <= given.keys():
            raise UserError("Give rank or reduction_rate, not both.")
        return {key: self.knobs[key].check(value) for key, value in given.items()}

    @property
    def defaults(self) -> dict[str, Any]:
        """What each knob is where nothing is said."""
        return {name: knob.default for name, knob in self.knobs.items()}

    def complete(self, knobs: dict[str, Any]) -> dict[str, Any]:
        """What the method is built with where some knobs are given: all that it reads,
        so that another default in a later version changes nothing. A rank takes the
        place of the default reduction_rate."""
        given = {key: value for key, value in knobs.items() if value is not None}
        settings = {**self.defaults, **given}
        if "rank" in given and "reduction_rate" not in given:
            settings.pop("reduction_rate", None)
        settings = {key: value for key, value in settings.items() if value is not None}
        return settings if self.filled is None else self.filled(settings)


def make_method(name: str, **knobs: Any) -> Method:
    """The method `name` with its defaults, changed by `knobs`.

    Arguments
    ---------
    name : str
        A name of `hparams/methods.yaml`.
    **knobs
        Settings of the method; None keeps the default.

    Returns
    -------
    Method

    Raises
    ------
    UserError
        If the method is unknown, has no use for a knob, or the value of one is wrong.

    Example
    -------
    >>> make_method("bottleneck", rank=12).knobs["rank"]
    12
    """
    entry = method_entry(name)
    settings = entry.complete(entry.check(knobs))
    method = entry.factory(**settings)
    method.name, method.knobs = name, settings
    return method


def method_entry(name: str) -> Entry:
    """The entry of one method, or a UserError naming the methods."""
    table = method_table()
    if name not in table:
        raise UserError(f"There is no method {name}: choose among {', '.join(table)}.")
    return table[name]


@cache
def method_table() -> dict[str, Entry]:
    """All methods, by name, in the order of `hparams/methods.yaml`."""
    with open(TABLE, encoding="utf-8") as stream:
        said = load_hyperpyyaml(stream)
    return {name: entry_of(name, **facts) for name, facts in said.items()}


@cache
def method_knobs() -> tuple[str, ...]:
    """The names of all methods' knobs."""
    names = (name for entry in method_table().values() for name in entry.knobs)
    return tuple(dict.fromkeys(names))


# Helpers


def entry_of(
    name: str,
    factory: Callable[..., Method],
    lr: float,
    lr_after_head_start: float,
    defaults: dict[str, Any] | None = None,
    search: dict[str, list] | None = None,
) -> Entry:
    """The entry that a mapping of the yaml file describes."""
    keywords = getattr(factory, "keywords", {})
    method: Any = getattr(factory, "func", factory)
    module = keywords.get("adapter") or method.module
    knobs = knobs_of(factory, "Method")
    if module is not None:
        inner = knobs_of(module, "Method")
        knobs |= {n: knob for n, knob in inner.items() if n not in SIZES}
    for key, value in (defaults or {}).items():
        knobs[key] = replace(knobs[key], default=value)
    filled = getattr(module, "filled", None)
    return Entry(name, factory, lr, lr_after_head_start, knobs, search or {}, filled)
