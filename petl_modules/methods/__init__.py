"""The PETL methods: module classes, and `make_method`, which builds one by name."""

from functools import cache
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml

from petl_modules.errors import UserError
from petl_modules.methods.adapters import (
    Bottleneck,
    Conformer,
    ConvAdapter,
    Convpass,
    SiteAdapters,
)
from petl_modules.methods.base import Method
from petl_modules.methods.baselines import BitFit, FullFineTuning, LinearProbe
from petl_modules.methods.lora import LoRA, LoRAProjections
from petl_modules.methods.mixtures import DenseMoA, SoftMoA
from petl_modules.methods.prompts import (
    Prefix,
    PrefixKeysValues,
    Prompt,
    PromptTokens,
)

__all__ = [
    "BitFit",
    "Bottleneck",
    "Conformer",
    "ConvAdapter",
    "Convpass",
    "DenseMoA",
    "FullFineTuning",
    "LinearProbe",
    "LoRA",
    "LoRAProjections",
    "Method",
    "Prefix",
    "PrefixKeysValues",
    "Prompt",
    "PromptTokens",
    "SiteAdapters",
    "SoftMoA",
    "make_method",
    "method_table",
]

TABLE = Path(__file__).parent.parent / "hparams" / "methods.yaml"


def make_method(name, **knobs):
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
        If the method is unknown, or has no use for a knob.

    Example
    -------
    >>> make_method("bottleneck", rank=12).knobs["rank"]
    12
    """
    entry = method_entry(name)
    given = {key: value for key, value in knobs.items() if value is not None}
    useless = sorted(set(given) - set(entry["knobs"]))
    if useless:
        raise UserError(
            f"The method {name} has no use for {', '.join(useless)}; its knobs are: "
            f"{', '.join(entry['knobs']) or 'none'}."
        )
    settings = {**entry["knobs"], **given}
    settings = {key: value for key, value in settings.items() if value is not None}
    method = entry["factory"](**settings)
    method.name, method.knobs = name, settings
    return method


def method_entry(name):
    """`{factory, lr, knobs}` of one method, or a UserError naming the methods."""
    table = method_table()
    if name not in table:
        raise UserError(f"There is no method {name}: choose among {', '.join(table)}.")
    return table[name]


@cache
def method_table():
    """`{name: {factory, lr, knobs}}`, read from `hparams/methods.yaml`."""
    with open(TABLE, encoding="utf-8") as stream:
        return load_hyperpyyaml(stream)
