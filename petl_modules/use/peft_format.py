"""Write a LoRA in the format of Hugging Face's PEFT library; `from_peft` reads one.

`petl peft ADAPTER FOLDER` writes adapter_config.json and adapter_model.safetensors,
which `peft.PeftModel.from_pretrained` puts on the backbone
that `transformers.AutoModel` loads; the trained last LayerNorm goes with it. The head
stays with the adapter: PEFT knows none for a bare backbone.
"""

from pathlib import Path

import torch

from petl_modules.console import Parser
from petl_modules.core.adapted import AdaptedModel, check_same_tensors
from petl_modules.errors import UserError
from petl_modules.files import write_json, write_tensors
from petl_modules.methods import LoRAProjections, make_method
from petl_modules.use.adapter_file import read_adapter
from petl_modules.use.adapter_schema import read_json
from petl_modules.use.adapter_tensors import read_tensors
from petl_modules.use.merge import refuse_full

PREFIX = "base_model.model."
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
# What changes a LoRA in a way that ours does not know, with the value that does not
PLAIN = {
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "lora_bias": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
}


def to_peft(model, folder):
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
    if len(model.methods) != 1 or not isinstance(model.methods[0], LoRAProjections):
        names = ", ".join(method.name for method in model.methods)
        raise UserError(f"PEFT's format is for the method lora alone, not {names}.")
    backbone = model.backbone
    refuse_where_peft_differs(backbone)
    ranks = {update.a.out_features for update in model.petl.values()}
    if len(ranks) > 1:
        raise UserError(
            f"The LoRA has the ranks {sorted(ranks)}, and PEFT's format is written for "
            "one: train with rank instead of reduction_rate."
        )
    folder = Path(folder)
    refuse_full(folder)
    update = next(iter(model.petl.values()))
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


def from_peft(folder, backbone):
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
    given = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in read_tensors(folder / TENSORS).items()
    }
    adapted = {name.split(".lora_")[0] for name in given if ".lora_" in name}
    paths = paths_of(backbone)
    places = {
        (part, layer.index, target)
        for part, points in backbone.parts.items()
        for layer in points.layers
        for target, site in layer.projections.items()
        if paths[site.module] in adapted
    }
    if not places:
        raise UserError(
            f"The LoRA of {folder} is for no projection of {backbone.source}."
        )
    method = make_method(
        "lora",
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=config.get("lora_dropout"),
        parts=sorted({part for part, _, _ in places}),
        layers=sorted({index for _, index, _ in places}),
        targets=sorted({target for _, _, target in places}),
    )
    model = AdaptedModel(backbone, method)
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


def named_as_in_peft(model):
    """What trains in an adapted model with LoRA, by PEFT's names."""
    named = {}
    for name, update in model.petl.items():
        path = module_path(model, name)
        named[f"{path}.lora_A.weight"] = update.a.weight
        named[f"{path}.lora_B.weight"] = update.b.weight
    if model.backbone.has_head:
        return named
    path = norm_path(model.backbone)
    norm = model.points.last_norm.named_parameters()
    return named | {f"{path}.{n}": p for n, p in norm}


def module_path(model, name):
    """The path of the projection that one of the model's modules updates."""
    _, layer, target = model.places[name]
    return paths_of(model.backbone)[layer.projections[target].module]


def norm_path(backbone):
    """The path of the last LayerNorm, which trains with the head."""
    return paths_of(backbone)[backbone.points.last_norm]


def paths_of(backbone):
    """`{module: path}` in the model that `transformers.AutoModel` loads, or
    `AutoModelForSpeechSeq2Seq` for a Whisper with its decoder."""
    alone = backbone.family == "whisper" and not backbone.has_head
    within = "encoder." if alone else ""
    return {m: within + path for path, m in backbone.model.named_modules()}


def refuse_unknown(config, folder):
    """Raise a UserError for what is no plain LoRA."""
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder} holds {config.get('peft_type')}, not LORA.")
    for key, plain in PLAIN.items():
        if config.get(key, plain) != plain:
            raise UserError(
                f"The LoRA of {folder} has {key}={config[key]}, which is unknown here."
            )
    if not {"r", "lora_alpha"} <= config.keys():
        raise UserError(f"{folder / CONFIG} lacks r or lora_alpha.")


def refuse_where_peft_differs(backbone):
    """Raise a UserError for a backbone on which PEFT computes something else."""
    if backbone.family == "wavlm":
        raise UserError(
            "transformers' WavLM reads the weights of its projections past PEFT's "
            "modules: merge the adapter instead (python -m petl_modules.merge)."
        )
    if backbone.stretched:
        raise UserError(
            f"The position table of {backbone.source} is stretched here, and not where "
            "PEFT is used: merge the adapter instead (python -m petl_modules.merge)."
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
