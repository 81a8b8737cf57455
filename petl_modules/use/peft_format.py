"""Write a LoRA in the format of Hugging Face's PEFT library; `from_peft` reads one.

`petl peft ADAPTER FOLDER` writes adapter_config.json and adapter_model.safetensors,
which `peft.PeftModel.from_pretrained` puts on the backbone
that `transformers.AutoModel` loads; the trained last LayerNorm goes with it. The head
stays with the adapter: PEFT knows none for a bare backbone.
"""

from collections.abc import Mapping, Set
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import nn

from petl_modules.backbones import Backbone
from petl_modules.console import Parser
from petl_modules.core.adapted import AdaptedModel, check_same_tensors
from petl_modules.errors import UserError
from petl_modules.files import refuse_full, write_json, write_tensors
from petl_modules.methods import LoRAProjections, Method, make_method
from petl_modules.use.adapter_file import read_adapter
from petl_modules.use.adapter_schema import read_json, shortened
from petl_modules.use.adapter_tensors import read_header, read_tensors

PREFIX = "base_model.model."
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
# What our LoRA is in PEFT's terms
PLAIN = {
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "lora_bias": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
}
# What is read or has no part in what a trained LoRA computes; `modules_to_save` and the
# modules that are named show in the tensors
ANY = {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "revision"),
    *("base_model_name_or_path", "inference_mode", "r", "lora_alpha", "lora_dropout"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "use_rslora", "runtime_config", "megatron_core"),
    *("qalora_group_size", "eva_config"),
}
# Starts that leave the base as it was; PiSSA's, OLoRA's and others change its weights
STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


def to_peft(model: AdaptedModel, folder: str | Path) -> None:
    """Write the LoRA and the last LayerNorm of an adapted model in PEFT's format.

    Arguments
    ---------
    model : AdaptedModel
        With lora as its only method.
    folder : str or Path
        New or empty.

    Raises
    ------
    UserError
        For other methods, and for backbones on which PEFT would compute otherwise.
    """
    if not all(isinstance(method, LoRAProjections) for method in model.methods):
        names = ", ".join(method.name for method in model.methods)
        raise UserError(f"PEFT's format is for the method lora alone, not {names}.")
    backbone = model.backbone
    refuse_where_peft_differs(backbone)
    updates: list[Any] = list(model.petl.values())
    ranks = {update.a.out_features for update in updates}
    if len(ranks) > 1:
        raise UserError(
            f"The LoRA has the ranks {sorted(ranks)}, and PEFT's format is written for "
            "one: train with rank instead of reduction_rate."
        )
    if len({update.scale for update in updates}) > 1:
        raise UserError("PEFT's format is written for one alpha, not several.")
    folder = Path(folder)
    refuse_full(folder)
    update = updates[0]
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": str(backbone.source),
        "inference_mode": True,
        "r": update.a.out_features,
        "lora_alpha": update.scale * update.a.out_features,
        "lora_dropout": update.dropout.p,
        "target_modules": [module_path(model, name) for name in model.petl],
        "modules_to_save": [] if backbone.has_head else [norm_path(backbone)],
        **PLAIN,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        PREFIX + name: parameter.detach().cpu().contiguous()
        for name, parameter in named_as_in_peft(model).items()
    }
    write_tensors(folder / TENSORS, tensors, {"format": "pt"})
    write_json(folder / CONFIG, config)


def from_peft(folder: str | Path, backbone: Backbone) -> AdaptedModel:
    """An adapted model with the LoRA of a folder in PEFT's format.

    Arguments
    ---------
    folder : str or Path
        With adapter_config.json and adapter_model.safetensors.
    backbone : Backbone
        With its pretrained weights.

    Returns
    -------
    AdaptedModel
        In eval mode.

    Raises
    ------
    UserError
        If the folder holds something else, or more than LoRA and the last LayerNorm.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    refuse_unknown(config, folder)
    refuse_where_peft_differs(backbone)
    refuse_other_ranks(config, folder)
    given = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in read_tensors(folder / TENSORS).items()
    }
    adapted = {name.split(".lora_")[0] for name in given if ".lora_" in name}
    paths = paths_of(backbone)
    methods = lora_methods(
        config, backbone, {m for m, p in paths.items() if p in adapted}
    )
    if not methods:
        raise UserError(
            f"The LoRA of {folder} is for no projection of {backbone.source}."
        )
    model = AdaptedModel(backbone, methods)
    norm = norm_path(backbone)
    wanted = {
        name: parameter
        for name, parameter in named_as_in_peft(model).items()
        # PEFT trains no norm unless it is told to
        if name in given or not name.startswith(f"{norm}.")
    }
    check_same_tensors(wanted, given, f"LoRA on {backbone.source}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(given[name])
    return model.eval()


# Helpers


def named_as_in_peft(model: AdaptedModel) -> dict[str, torch.Tensor]:
    """What trains in an adapted model with LoRA, by PEFT's names."""
    named: dict[str, torch.Tensor] = {}
    update: Any
    for name, update in model.petl.items():
        path = module_path(model, name)
        named[f"{path}.lora_A.weight"] = update.a.weight
        named[f"{path}.lora_B.weight"] = update.b.weight
    if model.backbone.has_head:
        return named
    path = norm_path(model.backbone)
    norm = model.points.last_norm.named_parameters()
    return named | {f"{path}.{n}": p for n, p in norm}


def module_path(model: AdaptedModel, name: str) -> str:
    """The path of the projection that one of the model's modules updates."""
    _, layer, target = model.places[name]
    return paths_of(model.backbone)[layer.projections[target].module]


def norm_path(backbone: Backbone) -> str:
    """The path of the last LayerNorm, which trains with the head."""
    return paths_of(backbone)[backbone.points.last_norm]


def paths_of(backbone: Backbone) -> dict[nn.Module, str]:
    """`{module: path}` in the model that `transformers.AutoModel` loads, or
    `AutoModelForSpeechSeq2Seq` for a Whisper with its decoder."""
    alone = backbone.family == "whisper" and not backbone.has_head
    within = "encoder." if alone else ""
    return {m: within + path for path, m in backbone.model.named_modules()}


def lora_methods(
    config: Mapping[str, Any], backbone: Backbone, adapted: Set[nn.Module]
) -> list[Method]:
    """The methods that put LoRA on certain projections: one for the layers of a part
    that have the same ones, as parts may differ in layers, and layers in projections.

    Arguments
    ---------
    config : dict
        Of PEFT.
    backbone : Backbone
    adapted : set of torch.nn.Module
        The projections.
    """
    alike: dict[tuple, list[int]] = {}
    for part, points in backbone.parts.items():
        for layer in points.layers:
            sites = layer.projections.items()
            targets = tuple(name for name, site in sites if site.module in adapted)
            if targets:
                alike.setdefault((part, targets), []).append(layer.index)
    # rsLoRA's scale is alpha / sqrt(r)
    stretch = sqrt(config["r"]) if config.get("use_rslora") else 1.0
    return [
        make_method(
            "lora",
            rank=config["r"],
            alpha=config["lora_alpha"] * stretch,
            dropout=config.get("lora_dropout"),
            parts=[part],
            layers=layers,
            targets=list(targets),
        )
        for (part, targets), layers in alike.items()
    ]


def refuse_unknown(config: Mapping[str, Any], folder: Path) -> None:
    """Raise a UserError for what is no LoRA that ours can compute."""
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder} holds {config.get('peft_type')}, not LORA.")
    start = config.get("init_lora_weights")
    if not any(start is known or start == known for known in STARTS):
        raise UserError(
            f"The LoRA of {folder} started by {start}, which changes the base's "
            "weights: convert it with PEFT's path_initial_model_for_weight_conversion."
        )
    for key, value in config.items():
        # a key that is off, such as those that later versions of PEFT add
        plain = PLAIN.get(key, value if not value else None)
        if key not in {*ANY, "init_lora_weights"} and value != plain:
            raise UserError(
                f"The LoRA of {folder} has {key}={shortened(str(value))}, which is "
                "unknown here."
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    whole = isinstance(rank, int) and not isinstance(rank, bool) and rank > 0
    if not whole or not isinstance(alpha, int | float) or not isfinite(alpha):
        raise UserError(f"{folder / CONFIG} has r={rank} and lora_alpha={alpha}.")


def refuse_other_ranks(config: Mapping[str, Any], folder: Path) -> None:
    """Raise a UserError unless the tensors have the rank of the config; none is read,
    and nothing built."""
    for name, (_, shape) in read_header(folder / TENSORS).items():
        if "lora_A" in name and shape[:1] != (config["r"],):
            raise UserError(
                f"The tensor {name} of {folder} has the shape {shape}, its r is "
                f"{config['r']}."
            )


def refuse_where_peft_differs(backbone: Backbone) -> None:
    """Raise a UserError for a backbone on which PEFT computes something else."""
    if backbone.family == "wavlm":
        raise UserError(
            "transformers' WavLM reads the weights of its projections past PEFT's "
            "modules: merge the adapter instead (petl merge)."
        )
    if backbone.stretched:
        raise UserError(
            f"The position table of {backbone.source} is stretched here, and not where "
            "PEFT is used: merge the adapter instead (petl merge)."
        )


def main(argv: list[str] | None = None) -> None:
    """Write an adapter in PEFT's format, and say where."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("adapter", metavar="ADAPTER", help="The folder of a run, of the method lora.")
    add("folder", metavar="FOLDER", help="A new folder for the files.")
    add("--source", help="The backbone, if it is not where the adapter says.")
    options = parser.parse_args(argv)
    to_peft(read_adapter(options.adapter, source=options.source).model, options.folder)
    print(f"LoRA in PEFT's format: {options.folder}")
