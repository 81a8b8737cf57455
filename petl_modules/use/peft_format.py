"""Write an adapter in the format of Hugging Face's PEFT library; `from_peft` reads one.

`petl peft ADAPTER FOLDER` writes adapter_config.json and adapter_model.safetensors,
which `peft.PeftModel.from_pretrained` puts on the backbone that
`transformers.AutoModel` loads; the trained last LayerNorm goes with it. The methods are
lora with its variants, adalora, ia3 (scale without shifts), vera and norms. A
classifier's head lies beside it, with classify.py, which uses both without petl, and a
README that says what transformers' features make of short clips.
"""

import sys
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import nn

from petl_modules.backbones import Backbone
from petl_modules.backbones.checkpoint import Checkpoint
from petl_modules.console import Parser
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.tensors import check_same_tensors
from petl_modules.errors import UserError
from petl_modules.files import whole_folder, write_json, write_tensors
from petl_modules.methods import Method, make_method
from petl_modules.methods.scale import INPUT
from petl_modules.use.adapter_file import read_adapter
from petl_modules.use.adapter_schema import read_json
from petl_modules.use.adapter_tensors import Header, read_header, read_tensors
from petl_modules.use.peft_head import write_head
from petl_modules.use.peft_kinds import (
    Kind,
    NormsKind,
    kind_named,
    kind_of,
    same_projections,
    trained_norms,
)

PREFIX = "base_model.model."
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
FLOATS = {"F64", "F32", "F16", "BF16"}  # safetensors' names of what trains


def to_peft(model: AdaptedModel, folder: str | Path) -> None:
    """Write the method and the last LayerNorm of an adapted model in PEFT's format.

    Arguments
    ---------
    model : AdaptedModel
        With lora, adalora, ia3, vera or norms as its only method.
    folder : str or Path
        New or empty.

    Raises
    ------
    UserError
        For other methods, and for backbones on which PEFT would compute otherwise.
    """
    kind, backbone = kind_of(model), model.backbone
    refuse_where_peft_differs(backbone)
    modules: list[Any] = list(model.petl.values())
    settings = kind.config(modules)
    named = named_as_in_peft(model, kind)
    targets = sorted({name.split(kind.mark)[0] for name in named if kind.mark in name})
    beside = [norm_path(backbone)] if any(beside_it(named, kind)) else []
    config = {
        "peft_type": kind.type,
        "task_type": None,
        "base_model_name_or_path": str(backbone.source),
        "inference_mode": True,
        "target_modules": targets,
        "modules_to_save": beside,
        **settings,
    }
    if kind.type == "IA3":
        read = {
            module_path(model, name)
            for name, (_, _, site) in model.places.items()
            if site.endswith(INPUT)
        }
        config["feedforward_modules"] = sorted(read)
    tensors = {PREFIX + name: tensor for name, tensor in named.items()}
    tensors |= kind.shared(model)
    tensors = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}
    with whole_folder(folder) as partial:
        write_tensors(partial / TENSORS, tensors, {"format": "pt"})
        write_json(partial / CONFIG, config)


def from_peft(folder: str | Path, backbone: Backbone) -> AdaptedModel:
    """An adapted model with what a folder in PEFT's format holds.

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
        If the folder holds something else, or more than one of lora, adalora, ia3,
        vera and norms and the last LayerNorm.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    kind = kind_named(config.get("peft_type"), folder)
    refuse_where_peft_differs(backbone)
    header = read_header(folder / TENSORS)
    for name, (dtype, _) in header.items():
        if dtype not in FLOATS:
            raise UserError(f"The tensor {name} of {folder} has the type {dtype}.")
    kind.refuse(config, header, folder)
    given = {
        name.removeprefix(PREFIX): kind.whole(name, tensor, config)
        for name, tensor in read_tensors(folder / TENSORS).items()
    }
    find = norm_methods if isinstance(kind, NormsKind) else update_methods
    methods = find(kind, config, backbone, header)
    if not methods:
        raise UserError(
            f"The {kind.type} of {folder} is for no part of {backbone.source}."
        )
    model = AdaptedModel(backbone, methods)
    for name, drawn in kind.shared(model).items():
        if name not in given or not same_projections(drawn, given.pop(name)):
            raise UserError(
                f"The {kind.type} of {folder} was drawn otherwise than its "
                f"projection_prng_key says, or saved without {name}."
            )
    norm = norm_path(backbone)
    wanted = {
        name: parameter
        for name, parameter in named_as_in_peft(model, kind).items()
        # PEFT trains no last norm unless it is told to
        if name in given or not name.startswith(f"{norm}.")
    }
    check_same_tensors(wanted, given, f"{kind.type} on {backbone.source}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(given[name])
    return model.eval()


# Helpers


def named_as_in_peft(model: AdaptedModel, kind: Kind) -> dict[str, torch.Tensor]:
    """What trains in an adapted model, by PEFT's names."""
    if isinstance(kind, NormsKind):
        within = within_auto_model(model.backbone)
        norms = trained_norms(model.backbone.model)
        return {within + name: parameter for name, parameter in norms.items()}
    named: dict[str, torch.Tensor] = {}
    for name, module in model.petl.items():
        path = module_path(model, name)
        found = kind.tensors(module, model.places[name][2])
        named |= {path + inner: tensor for inner, tensor in found.items()}
    path = norm_path(model.backbone)
    if model.backbone.has_head or path is None:
        return named
    norm = model.points.last_norm.named_parameters()
    return named | {f"{path}.{n}": p for n, p in norm}


def beside_it(named: Mapping[str, Any], kind: Kind) -> list[str]:
    """The names of what is no part of the method: the last LayerNorm."""
    return [name for name in named if kind.mark not in name]


def module_path(model: AdaptedModel, name: str) -> str:
    """The path of the projection that one of the model's modules updates."""
    _, layer, site = model.places[name]
    place = layer.projections[site.removesuffix(INPUT)]
    return paths_of(model.backbone)[place.module]


def norm_path(backbone: Backbone) -> str | None:
    """The path of the last LayerNorm, which trains with the head; None where there is
    none."""
    return paths_of(backbone).get(backbone.points.last_norm)


def paths_of(backbone: Backbone) -> dict[nn.Module, str]:
    """`{module: path}` in the model that `transformers.AutoModel` loads, or
    `AutoModelForSpeechSeq2Seq` for a Whisper with its decoder."""
    within = within_auto_model(backbone)
    return {m: within + path for path, m in backbone.model.named_modules()}


def within_auto_model(backbone: Backbone) -> str:
    """Where the backbone's model is within the one that is loaded there."""
    if backbone.family == "whisper" and not backbone.has_head:
        return "encoder."
    clap = backbone.family == "clap_audio_model"
    whole = clap and Checkpoint(backbone.source).model_type == "clap"
    return "audio_model." if whole else ""


def update_methods(
    kind: Kind, config: Mapping[str, Any], backbone: Backbone, header: Header
) -> list[Method]:
    """The methods that put a kind's modules on the projections that tensors name: one
    for the layers of a part that have the same ones, as parts may differ in layers, and
    layers in projections."""
    shapes: dict[str, dict[str, tuple]] = {}
    for name, (_, shape) in header.items():
        path, mark, inner = name.removeprefix(PREFIX).partition(kind.mark)
        if mark:
            shapes.setdefault(path, {})[inner] = shape
    paths = paths_of(backbone)
    alike: dict[tuple, list[int]] = {}
    for part, points in backbone.parts.items():
        for layer in points.layers:
            sites = tuple(
                kind.site(target, shapes[paths[place.module]])
                for target, place in layer.projections.items()
                if paths[place.module] in shapes
            )
            if sites:
                alike.setdefault((part, sites), []).append(layer.index)
    return [
        make_method(**kind.settings(config, list(sites)), parts=[part], layers=layers)
        for (part, sites), layers in alike.items()
    ]


def norm_methods(
    kind: Kind, config: Mapping[str, Any], backbone: Backbone, header: Header
) -> list[Method]:
    """The methods that train the LayerNorms that tensors name, layer by layer."""
    del config
    names = {name.removeprefix(PREFIX).split(kind.mark)[0] for name in header}
    paths, methods = paths_of(backbone), []
    for part, points in backbone.parts.items():
        chosen = [
            layer.index
            for layer in points.layers
            if names & norms_within(layer.module, paths)
        ]
        if chosen:
            methods.append(make_method("norms", parts=[part], layers=chosen))
    return methods


def norms_within(tree: nn.Module, paths: Mapping[nn.Module, str]) -> Set[str]:
    """The paths of the LayerNorms of a layer."""
    return {paths[m] for m in tree.modules() if isinstance(m, nn.LayerNorm)}


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
    add("adapter", metavar="ADAPTER", help="The folder of a run.")
    add("folder", metavar="FOLDER", help="A new folder for the files.")
    add("--source", help="The backbone, if it is not where the adapter says.")
    options = parser.parse_args(argv)
    adapter = read_adapter(options.adapter, source=options.source)
    to_peft(adapter.model, options.folder)
    print(f"In PEFT's format: {options.folder}")
    if without := write_head(options.folder, adapter):
        print(f"There is no script beside it: {without}.", file=sys.stderr)
