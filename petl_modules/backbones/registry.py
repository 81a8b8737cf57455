"""The families of backbones: each registers itself here, and is found by its name.

A family is one module: its access-point table, its class, what preprocessors of
published checkpoints say, the architectures that it can build without a checkpoint, and
how a checkpoint is loaded. To add one, put such a module beside this one, with a call
of `register`; nothing else knows its name.
"""

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from petl_modules.errors import UserError

if TYPE_CHECKING:
    from petl_modules.backbones.base import Backbone
    from petl_modules.backbones.checkpoint import Checkpoint

# Families that live outside this package: imported by name, when they are asked for
ELSEWHERE = ("petl_modules.tts.fastspeech2",)


@dataclass(frozen=True)
class Entry:
    """What is known of a family.

    Attributes
    ----------
    model_type : str
        As `model_type` of a checkpoint's config.json.
    load : callable
        From a `Checkpoint` to a `Backbone`.
    architectures : dict
        What pretrained=False builds by name without asking a hub: for each the settings
        that differ from the defaults of transformers' config. The first is the family's
        short name.
    writes : bool
        Whether it has a decoder that writes text.
    """

    model_type: str
    load: "Callable[[Checkpoint], Backbone]"
    architectures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    writes: bool = False


_entries: dict[str, Entry] = {}


def register(
    model_type: str,
    load: "Callable[[Checkpoint], Backbone]",
    architectures: Mapping[str, Mapping[str, Any]] | None = None,
    writes: bool = False,
) -> None:
    """Make a family known; the arguments are those of `Entry`."""
    _entries[model_type] = Entry(model_type, load, architectures or {}, writes)


def find(model_type: str, source: str) -> Entry:
    """The family of a model type.

    Raises
    ------
    UserError
        If there is none, naming those that there are.
    """
    for entries in _known():
        if model_type in entries:
            return entries[model_type]
    raise UserError(
        f"{source} is a {model_type} model; the backbones are {', '.join(families())}."
    )


def architecture(name: str) -> tuple[str, dict[str, Any]] | None:
    """The model type and settings of an architecture known by name, or None."""
    for entries in _known():
        for entry in entries.values():
            if name in entry.architectures:
                return entry.model_type, dict(entry.architectures[name])
    return None


def families() -> dict[str, Entry]:
    """Every family by its model type."""
    *_, entries = _known()
    return dict(entries)


def _known() -> Iterator[dict[str, Entry]]:
    """The families of this package, and then, for who looks further, all of them."""
    _discover()
    yield _entries
    for name in ELSEWHERE:
        import_module(name)
    yield _entries


@cache
def _discover() -> None:
    package = import_module("petl_modules.backbones")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)
