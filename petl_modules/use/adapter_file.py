"""What training leaves: `adapter.safetensors` with the tensors and `adapter.json` with
all that is needed to use them. Nothing in them is ever run."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from petl_modules.backbones import Backbone, load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.files import write_json, write_tensors
from petl_modules.methods import make_method
from petl_modules.use.adapter_checks import (
    HEADS,
    refuse_changed,
    refuse_other_backbone,
    refuse_sizes_beyond,
)
from petl_modules.use.adapter_schema import (
    FORMAT,
    SETTINGS,
    TENSORS,
    AdapterSettings,
    checksum_of,
    read_settings,
    shortened,
)
from petl_modules.use.adapter_tensors import check_header, read_header, read_tensors
from petl_modules.use.hub import located

HERE = "."
# Knobs of adapters that were saved before there was a choice
UNSAID = {"full": {"freeze_feature_encoder": False}}


def save_adapter(
    folder: str | Path,
    model: AdaptedModel,
    head: nn.Module,
    info: Mapping[str, Any],
    source: str | None = None,
) -> None:
    """Save what training changed, and nothing of the frozen backbone.

    Each of the two files is whole or not there, and a checksum tells whether they
    belong together.

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
    own: Any = head
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
        "head": {"type": type(head).__name__, **own.settings},
        "sample_rate": backbone.sample_rate,
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "info": dict(info),
    }
    write_tensors(folder / TENSORS, tensors)
    settings = json.loads(json.dumps(settings))  # tuples are lists there
    settings["checksum"] = checksum_of(settings, folder / TENSORS)
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
    head: nn.Module
    info: dict[str, Any]
    max_duration: float | None


def read_adapter(
    folder: str | Path, backbone: Backbone | None = None, source: str | None = None
) -> Adapter:
    """A trained model from an adapter's folder.

    All of both files is checked before anything is built: settings against a schema,
    names, shapes and types of the tensors against what the settings would build (worked
    out without memory for it), values, checksum. A backbone is left as it was if the
    adapter is refused.

    Arguments
    ---------
    folder : str or Path
        With adapter.safetensors and adapter.json; or an id on a hub, OWNER/NAME.
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
    folder = located(folder)
    settings = read_settings(folder / SETTINGS)
    header = read_header(folder / TENSORS)
    refuse_sizes_beyond(settings, header, folder)
    refuse_changed(settings, folder)
    if backbone is None:
        backbone = load_its_backbone(folder, source)
    refuse_other_backbone(backbone, settings, folder)
    with reverting(backbone), torch.device("meta"):
        like, head = build(settings, backbone, folder)
        expected = state(like, head)
        if settings.format == 1:  # which kept no statistics of the backbone's own
            lost = like.statistics().keys() - header.keys()
            expected = {n: t for n, t in expected.items() if n not in lost}
    check_header(header, expected, folder / TENSORS)
    tensors = read_tensors(folder / TENSORS)
    with reverting(backbone, only_refused=True):
        model, head = build(settings, backbone, folder)
        with torch.no_grad():
            own = state(model, head)
            for name, tensor in tensors.items():
                own[name].copy_(tensor)
    info = settings.info.model_dump(exclude_unset=True)
    max_duration = settings.backbone.max_duration
    return Adapter(model.eval(), head.eval(), info, max_duration)


def load_its_backbone(folder: str | Path, source: str | None = None) -> Backbone:
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
    folder = located(folder)
    made_for = read_settings(folder / SETTINGS).backbone
    if source is None:  # HERE: an adapter that lies beside its backbone
        source = str(folder) if made_for.source == HERE else made_for.source
    return load_backbone(
        source,
        max_duration=made_for.max_duration,
        decoder="decoder" in made_for.parts,
    )


def head_state(head: nn.Module) -> dict[str, torch.Tensor]:
    """The head's tensors, as they are named in the file."""
    return {f"head.{name}": tensor for name, tensor in head.state_dict().items()}


# Helpers


def state(model: AdaptedModel, head: nn.Module) -> dict[str, torch.Tensor]:
    """All tensors of an adapter by their names in the file; not copies."""
    return {**model.trained_state(), **head_state(head)}


def build(
    settings: AdapterSettings, backbone: Backbone, folder: Path
) -> tuple[AdaptedModel, nn.Module]:
    """The model and head that settings describe.

    Arguments
    ---------
    settings : AdapterSettings
    backbone : Backbone
    folder : Path
        Of the adapter, for a complaint.
    """
    try:
        methods = []
        for saved in settings.methods:
            knobs = {**UNSAID.get(saved.name, {}), **saved.knobs}
            methods.append(make_method(saved.name, **knobs))
            methods[-1].written_over = True
        model = AdaptedModel(backbone, methods, settings.besides)
        head = HEADS[settings.head.type](**settings.head.arguments)
    except UserError:
        raise
    except Exception as error:  # whatever constructors make of values that nobody sets
        raise UserError(
            f"Nothing can be built from the settings of {folder / SETTINGS} "
            f"({shortened(str(error))})."
        ) from None
    return model, head


@contextmanager
def reverting(backbone: Backbone, only_refused: bool = False) -> Iterator[None]:
    """Leave a backbone as it was before an adapted model was built on it.

    Arguments
    ---------
    backbone : Backbone
    only_refused : bool
        Whether it is changed back only when an error is raised.
    """
    tensors = (*backbone.parameters(), *backbone.buffers())
    before = {tensor: (tensor.data, tensor.requires_grad) for tensor in tensors}
    owner, done = backbone.points.hooks.owner, False
    try:
        yield
        done = only_refused
    finally:
        if not done:
            if backbone.points.hooks.owner is not owner:
                backbone.forget(backbone.points.hooks.owner)
            backbone.serve(owner)
            for tensor, (data, trains) in before.items():
                tensor.data = data
                tensor.requires_grad_(trains)
            backbone.eval()
