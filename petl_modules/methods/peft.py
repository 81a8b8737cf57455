"""Any tuner of Hugging Face's PEFT library, on our access points."""

import json
from typing import Any

import torch
from torch import Tensor, nn

from petl_modules.core.access_points import Projection
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.kinds import Layers, Parts
from petl_modules.methods.projections import Targets, Update, WeightUpdates

NAME = "place"  # of a projection within what PEFT is given
OURS = {
    "LORA": "lora",
    "ADALORA": "adalora",
    "IA3": "ia3",
    "VERA": "vera",
    "LN_TUNING": "norms",
}


class PeftModule(Update):
    """One of PEFT's layers around a projection, without the projection's own tensors.

    Arguments
    ---------
    layer : torch.nn.Module
        As PEFT made it, around a Linear that shares the projection's weights.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        base = layer._modules.pop("base_layer")
        layer.__dict__["base_layer"] = base  # to be found, and not to be registered
        self.layer = layer

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        """What is to be added to `out`, what the projection gives for x."""
        return self.layer(x) - out

    def onto(self, out: Tensor, x: Tensor) -> Tensor:
        return self.layer(x)

    def delta(self) -> Tensor:
        """The update of the weight, `(out_features, in_features)`."""
        weight = self.layer.base_layer.weight
        original = weight.data
        weight.data = original.clone()
        try:
            self.layer.merge()
            return weight.data - original
        finally:
            weight.data = original
            self.layer.merged_adapters.clear()


class PeftProjections(WeightUpdates):
    """A tuner of the library PEFT on the projections named by `targets`: those that
    change what a Linear computes, such as LOHA, LOKR, OFT, BOFT, HRA or FOURIERFT. The
    projection is computed twice, by the backbone and by PEFT, whose code may wait for
    the device and break graphs.

    Arguments
    ---------
    tuner : str
        PEFT's name of it.
    tuner_settings : str
        Settings of its config, as a JSON object, such as {"r": 4}.
    targets : list of str
        The projections that get an update: q, k, v, o of self-attention, fc1 and fc2
        (or ffn for both) of the feed-forward block, and cross_q, cross_k, cross_v,
        cross_o of a decoder's attention to the encoder.
    layers : list of int or None
        The layers that the method touches, such as [0, 1] or [-1]; null for all.
    parts : list of str or None
        The parts that it touches, encoder or decoder; null for all that there are.
    """

    additive = False  # PEFT's layers are not gathered
    reads_weights = True

    def __init__(
        self,
        tuner: str = "LOHA",
        tuner_settings: str = "{}",
        targets: Targets = ("q", "v"),  # pyright: ignore[reportArgumentType]
        layers: Layers | None = None,
        parts: Parts | None = None,
    ) -> None:
        super().__init__(targets, layers, parts)
        self.tuner, self.settings = tuner.upper(), settings_of(tuner_settings)
        if self.tuner in OURS:
            raise UserError(f"tuner={tuner}: take the method {OURS[self.tuner]}.")

    def attach(self, model: AdaptedModel) -> None:
        super().attach(model)
        modules = [module for _, module in self.updates]
        seen = [id(t) for m in modules for t in (*m.parameters(), *m.buffers())]
        if len(set(seen)) < len(seen):
            raise UserError(
                f"tuner={self.tuner} has tensors that several projections share, which "
                "is not offered here."
            )

    def update_of(self, place: Projection) -> PeftModule:
        return PeftModule(peft_layer(self.tuner, self.settings, place))


def settings_of(text: str) -> dict[str, Any]:
    """The settings that a JSON object says, or a UserError."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"tuner_settings={text} must be a JSON object.")
    return found


def peft_layer(tuner: str, settings: dict[str, Any], place: Projection) -> nn.Module:
    """PEFT's layer around a projection.

    Raises
    ------
    UserError
        If PEFT is not there, has no such tuner, or cannot put it there.
    """
    try:
        from peft import inject_adapter_in_model
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:
        raise UserError(
            "method=peft needs the library PEFT: pip install peft."
        ) from None
    if not place.whole:
        raise UserError("peft: this backbone computes several projections together.")
    configs = {
        str(kind.value): made for kind, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()
    }
    if tuner not in configs:
        raise UserError(f"tuner={tuner} is none of PEFT's: {', '.join(configs)}.")
    holder = nn.ModuleDict({NAME: linear_like(place)})
    try:
        config = configs[tuner](target_modules=[NAME], **settings)
        inject_adapter_in_model(config, holder)
    except (TypeError, ValueError, NotImplementedError, AttributeError, KeyError) as no:
        said = " ".join(str(no).split())[:200]
        raise UserError(
            f"tuner={tuner} cannot be put on a projection: {said}"
        ) from None
    layer = holder[NAME]
    if not isinstance(layer, BaseTunerLayer):
        raise UserError(f"tuner={tuner} puts no modules of its own on projections.")
    return layer


def linear_like(place: Projection) -> nn.Linear:
    """A Linear that shares a projection's tensors, and casts them to what it reads."""
    from petl_modules.core.precision import CastingLinear

    with torch.device("meta"):
        linear = CastingLinear(place.in_features, place.out_features)
    linear.weight, linear.bias = place.module.weight, place.module.bias
    return linear
