"""Whether an adapter's settings fit its tensors, its backbone and its head."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from petl_modules.backbones import Backbone
from petl_modules.errors import UserError
from petl_modules.tasks import heads
from petl_modules.tts.head import VoiceHead
from petl_modules.use.adapter_schema import (
    SETTINGS,
    TENSORS,
    AdapterSettings,
    BackboneSettings,
    checksum_of,
    read_json,
)

HEADS = {**heads.HEADS, VoiceHead.__name__: VoiceHead}
LEAST_BOUND = 2**16  # no size in adapter.json is refused below it for being too large


def refuse_sizes_beyond(
    settings: AdapterSettings, header: Mapping[str, tuple], folder: Path
) -> None:
    """Raise a UserError for a size that is larger than all tensors together; what is
    built of the others is worked out in no time."""
    numbers = [torch.Size(shape).numel() for _, shape in header.values()]
    bound = max(sum(numbers), LEAST_BOUND)
    for given in (*(m.knobs for m in settings.methods), settings.head.arguments):
        for name, value in given.items():
            if isinstance(value, int) and value > bound:
                raise UserError(
                    f"{folder / SETTINGS} has {name}={value}, more than the "
                    f"{sum(numbers)} numbers of {TENSORS}: it is damaged."
                )


def refuse_changed(settings: AdapterSettings, folder: Path) -> None:
    """Raise a UserError where the files are not as they were saved."""
    if settings.checksum is None:  # of an earlier version
        return
    if checksum_of(read_json(folder / SETTINGS), folder / TENSORS) != settings.checksum:
        raise UserError(
            f"{SETTINGS} or {TENSORS} of {folder} is not as it was saved (the checksum "
            "differs): copy both again."
        )


def refuse_other_backbone(
    backbone: Backbone, settings: AdapterSettings, folder: Path
) -> None:
    """Raise a UserError that says in what the backbone differs, or that a head is none
    for it."""
    refuse_other_weights(backbone, settings.backbone, folder)
    if settings.sample_rate not in (None, backbone.sample_rate):
        raise UserError(
            f"The adapter {folder} hears {settings.sample_rate} Hz, {backbone.source} "
            f"hears {backbone.sample_rate} Hz."
        )
    refuse_other_head(backbone, settings, folder)


def refuse_other_weights(
    backbone: Backbone, made_for: BackboneSettings, folder: Path
) -> None:
    """Raise a UserError unless the backbone is the one that an adapter is for."""
    wanted, given = made_for.family, backbone.family
    if given != wanted:
        raise UserError(
            f"The adapter {folder} was trained on a {wanted} model "
            f"({made_for.source}), not on a {given} model ({backbone.source})."
        )
    if list(backbone.parts) != made_for.parts:
        raise UserError(
            f"The adapter {folder} was trained on {' and '.join(made_for.parts)} of "
            f"{made_for.source}; {backbone.source} was loaded as "
            f"{' and '.join(backbone.parts)}."
        )
    if backbone.preprocessing != made_for.preprocessing:
        raise UserError(
            f"The adapter {folder} was trained with the preprocessing "
            f"{made_for.preprocessing}, {backbone.source} has "
            f"{backbone.preprocessing}."
        )
    if backbone.fingerprint() != made_for.fingerprint:
        theirs, ours = made_for.max_duration, backbone.max_duration
        cut = f"; its max_duration is {theirs}, not {ours}" if theirs != ours else ""
        raise UserError(
            f"The adapter {folder} was trained on {made_for.source}; the weights of "
            f"{backbone.source} are others (their fingerprints differ{cut})."
        )


def refuse_other_head(
    backbone: Backbone, settings: AdapterSettings, folder: Path
) -> None:
    """Raise a UserError for a head that cannot read this backbone, or does not fit its
    labels."""
    kind, arguments, labels = (
        settings.head.type,
        settings.head.arguments,
        settings.info.labels,
    )
    if kind not in HEADS:
        raise UserError(
            f"{folder / SETTINGS} has the head {kind}: there are {', '.join(HEADS)}."
        )
    writes, speaks = kind == heads.OwnHead.__name__, kind == VoiceHead.__name__
    if writes != backbone.has_head or speaks != (backbone.family == "fastspeech2"):
        raise UserError(
            f"{folder / SETTINGS} is damaged: a {kind} is no head for "
            f"{backbone.source}."
        )
    if writes:
        if arguments.get("language") is not None:
            writer: Any = backbone
            writer.refuse_language(arguments["language"])
        return
    sizes = {"hidden_size": backbone.hidden_size}
    if arguments.get("weighted_sum") or arguments.get("layer_adapters"):
        sizes["num_layers"] = backbone.num_layers
    if not speaks:
        if not labels:
            raise UserError(f"{folder / SETTINGS} is damaged: it has no labels.")
        if "slots" in arguments:  # the labels are all combinations
            arguments["num_classes"] = math.prod(map(int, arguments["slots"]))
        sizes["num_classes"] = len(labels)
    for name, size in sizes.items():
        if arguments.get(name) != size:
            raise UserError(
                f"{folder / SETTINGS} is damaged: its head has "
                f"{name}={arguments.get(name)}, where it must be {size}."
            )
