"""The PETL methods: module classes, and `make_method`, which builds one by name."""

from petl_modules.methods.adalora import AdaLoRA, AdaLoRAProjections
from petl_modules.methods.adapters import (
    Bottleneck,
    Conformer,
    ConvAdapter,
    Convpass,
    SiteAdapters,
)
from petl_modules.methods.base import Method
from petl_modules.methods.baselines import (
    BitFit,
    FullFineTuning,
    LinearProbe,
    NormTuning,
)
from petl_modules.methods.front import ConvolutionAdapters
from petl_modules.methods.lora import DoRA, LoRA, LoRAProjections, PiSSA
from petl_modules.methods.mamba import Mamba
from petl_modules.methods.mixtures import DenseMoA, SoftMoA
from petl_modules.methods.peft import PeftProjections
from petl_modules.methods.prompts import (
    Prefix,
    PrefixKeysValues,
    Prompt,
    PromptTokens,
)
from petl_modules.methods.scale import ScaleProjections, ScaleShift
from petl_modules.methods.ssvd import SSVD, SSVDProjections
from petl_modules.methods.table import (
    Entry,
    make_method,
    method_entry,
    method_knobs,
    method_table,
)
from petl_modules.methods.vera import VeRA, VeRAProjections

__all__ = [
    "SSVD",
    "AdaLoRA",
    "AdaLoRAProjections",
    "BitFit",
    "Bottleneck",
    "Conformer",
    "ConvAdapter",
    "ConvolutionAdapters",
    "Convpass",
    "DenseMoA",
    "DoRA",
    "Entry",
    "FullFineTuning",
    "LinearProbe",
    "LoRA",
    "LoRAProjections",
    "Mamba",
    "Method",
    "NormTuning",
    "PeftProjections",
    "PiSSA",
    "Prefix",
    "PrefixKeysValues",
    "Prompt",
    "PromptTokens",
    "SSVDProjections",
    "ScaleProjections",
    "ScaleShift",
    "SiteAdapters",
    "SoftMoA",
    "VeRA",
    "VeRAProjections",
    "make_method",
    "method_entry",
    "method_knobs",
    "method_table",
]
