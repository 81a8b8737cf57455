"""What training leaves: `adapter.safetensors` with the tensors and `adapter.json` with
all that is needed to use them. Nothing in them is ever run."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from petl_modules.backbones import load_backbone
from petl_modules.core.adapted import AdaptedModel, check_same_tensors
from petl_modules.errors import UserError
from petl_modules.files import write_json, write_tensors
from petl_modules.methods import make_method
from petl_modules.tasks import heads
from petl_modules.tts.head import VoiceHead

FORMAT = 1
TENSORS, SETTINGS = "adapter.safetensors", "adapter.json"
HERE = "."
# Knobs of adapters that were saved before there was a choice
UNSAID = {"full": {"freeze_feature_encoder": False}}
HEADS = {**heads.HEADS, VoiceHead.__name__: VoiceHead}


def save_adapter(folder, model, head, info, source=None):
    """Save what training changed, and nothing of the frozen backbone.

    Arguments
    ---------
    folder : str or Path
        Made if need be.
    model : AdaptedModel
    head : torch.nn.Module
        Of `petl_modules.tasks.heads`.
    info : dict
        JSON-able facts for whoever uses the adapter: labels, recipe, metrics.
    source : str or None
        Where the backbone is to be found, None for where it was loaded from; `HERE`
        for the adapter's own folder.
    """
    folder = Path(folder)
    tensors = {**model.trained_state(), **head_state(head)}
    backbone = model.backbone
    settings = {
        "format": FORMAT,
        "methods": [{"name": m.name, "knobs": m.knobs} for m in model.methods],
        "besides": model.besides,
        "backbone": {
            "source": str(source or backbone.source),
            "family": backbone.family,
            "fingerprint": backbone.fingerprint(),
            "max_duration": backbone.max_duration,
            "parts": list(backbone.parts),
            "preprocessing": backbone.preprocessing,
        },
        "head": {"type": type(head).__name__, **head.settings},
        "sample_rate": backbone.sample_rate,
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "info": info,
    }
    write_tensors(folder / TENSORS, tensors)
    write_json(folder / SETTINGS, settings)


@dataclass(frozen=True)
class Adapter:
    """A trained adapter on its backbone.

    Attributes
    ----------
    model : AdaptedModel
    head : torch.nn.Module
        Both in eval mode.
    info : dict
        What `save_adapter` was given.
    max_duration : float or None
        Seconds after which training cut clips.
    """

    model: AdaptedModel
    head: torch.nn.Module
    info: dict
    max_duration: float | None


def read_adapter(folder, backbone=None, source=None):
    """A trained model from an adapter's folder.

    Arguments
    ---------
    folder : str or Path
        With adapter.safetensors and adapter.json.
    backbone : Backbone or None
        With its pretrained weights; None loads the one that the file names.
    source : str or None
        Where that backbone is now, if not where the file says.

    Returns
    -------
    Adapter

    Raises
    ------
    UserError
        If the file is damaged, or made for another backbone.
    """
    folder = Path(folder)
    settings = read_settings(folder / SETTINGS)
    tensors = read_tensors(folder / TENSORS)
    made_for = settings["backbone"]
    if backbone is None:
        backbone = load_its_backbone(folder, source)
    refuse_other_backbone(backbone, made_for, folder)
    methods = [
        make_method(m["name"], **{**UNSAID.get(m["name"], {}), **m["knobs"]})
        for m in settings["methods"]
    ]
    model = AdaptedModel(backbone, methods, settings["besides"])
    head_settings = dict(settings["head"])
    head = HEADS[head_settings.pop("type")](**head_settings)
    expected = {**model.trained_state(), **head_state(head)}
    check_same_tensors(expected, tensors, f"the adapter file {folder / TENSORS}")
    model.load_trained_state(
        {name: t for name, t in tensors.items() if not name.startswith("head.")}
    )
    with torch.no_grad():
        for name, tensor in head_state(head).items():
            tensor.copy_(tensors[name])
    return Adapter(
        model.eval(), head.eval(), settings["info"], made_for["max_duration"]
    )


def load_its_backbone(folder, source=None):
    """The backbone that an adapter was trained on.

    Arguments
    ---------
    folder : str or Path
    source : str or None
        Where that backbone is now, if not where the file says.

    Raises
    ------
    UserError
        If the file is damaged, or the backbone cannot be loaded.
    """
    folder = Path(folder)
    made_for = read_settings(folder / SETTINGS)["backbone"]
    if source is None:  # HERE: an adapter that lies beside its backbone
        named = made_for["source"]
        source = str(folder) if named == HERE else named
    return load_backbone(
        source,
        max_duration=made_for["max_duration"],
        decoder="decoder" in made_for["parts"],
    )


def head_state(head):
    """The head's tensors, as they are named in the file."""
    return {f"head.{name}": tensor for name, tensor in head.state_dict().items()}


def read_settings(path):
    """The content of adapter.json, checked as far as loading relies on it."""
    settings = read_json(path)
    needed = {"format", "methods", "besides", "backbone", "head", "info"}
    lacking = needed - settings.keys() if isinstance(settings, dict) else needed
    if lacking:
        raise UserError(f"{path} is no adapter: it lacks {', '.join(sorted(lacking))}.")
    if settings["format"] != FORMAT:
        raise UserError(
            f"{path} has format {settings['format']}, this version reads {FORMAT}."
        )
    return settings


def read_json(path):
    """The content of an adapter's JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no adapter at {path}.") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: it is no JSON ({error}).") from None


def read_tensors(path):
    """The tensors of an adapter's safetensors file."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"There is no adapter at {path}.") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or cut short ({error}).") from None


def refuse_other_backbone(backbone, made_for, folder):
    """Raise a UserError that says in what the backbone differs."""
    wanted, given = made_for["family"], backbone.family
    if given != wanted:
        raise UserError(
            f"The adapter {folder} was trained on a {wanted} model "
            f"({made_for['source']}), not on a {given} model ({backbone.source})."
        )
    if list(backbone.parts) != made_for["parts"]:
        raise UserError(
            f"The adapter {folder} was trained on {' and '.join(made_for['parts'])} of "
            f"{made_for['source']}; {backbone.source} was loaded as "
            f"{' and '.join(backbone.parts)}."
        )
    if backbone.preprocessing != made_for["preprocessing"]:
        raise UserError(
            f"The adapter {folder} was trained with the preprocessing "
            f"{made_for['preprocessing']}, {backbone.source} has "
            f"{backbone.preprocessing}."
        )
    if backbone.fingerprint() != made_for["fingerprint"]:
        theirs, ours = made_for["max_duration"], backbone.max_duration
        cut = f"; its max_duration is {theirs}, not {ours}" if theirs != ours else ""
        raise UserError(
            f"The adapter {folder} was trained on {made_for['source']}; the weights of "
            f"{backbone.source} are others (their fingerprints differ{cut})."
        )
