"""The PETL methods: module classes, and `make_method`, which builds one by name."""

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
from petl_modules.methods.table import (
    Entry,
    make_method,
    method_entry,
    method_knobs,
    method_table,
)

__all__ = [
    "BitFit",
    "Bottleneck",
    "Conformer",
    "ConvAdapter",
    "Convpass",
    "DenseMoA",
    "Entry",
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
    "method_entry",
    "method_knobs",
    "method_table",
]
