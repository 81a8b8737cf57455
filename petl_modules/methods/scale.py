"""Learned scales and shifts of what projections read and give: SSF and IA3."""

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from petl_modules.core.access_points import LayerPoints
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.kinds import Items, Layers, Parts
from petl_modules.methods.base import Method
from petl_modules.methods.projections import Cross, Own, chosen_projections, expanded

INPUT = "_input"
Scaled = Annotated[list[Literal[Own, Cross]], Items(0)]


class ScaleShift(nn.Module):
    """`(g - 1) x + s`, channel by channel, to be added to x.

    Arguments
    ---------
    hidden_size : int
        Channels.
    shift : bool
        Whether there is an s.
    """

    def __init__(self, hidden_size: int, shift: bool = True) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(hidden_size))
        self.shift = nn.Parameter(torch.zeros(hidden_size)) if shift else None

    def forward(self, x: Tensor) -> Tensor:
        """`(..., channels)` to the same."""
        more = (self.gain - 1) * x
        return more if self.shift is None else more + self.shift


class ScaleProjections(Method):
    """Scales and shifts of what projections give and read: `g y + s`, channel by
    channel. On all that they give it is SSF (Lian et al., arXiv 2210.08823), of keys,
    values and what fc2 reads, without shifts, IA3 (Liu et al., 2205.05638).

    Arguments
    ---------
    scaled_outputs : list of str or None
        The projections of whose outputs every channel gets a scale: q, k, v, o of
        self-attention, fc1, fc2 (or ffn for both), and cross_q, cross_k, cross_v,
        cross_o of a decoder; null for all that there are.
    scaled_inputs : list of str
        The projections of whose inputs every channel gets one.
    shift : bool
        Whether a shift is learned beside every scale.
    layers : list of int or None
        The layers that the method touches, such as [0, 1] or [-1]; null for all.
    parts : list of str or None
        The parts that it touches, encoder or decoder; null for all that there are.
    """

    mergeable = True
    additive = True

    def __init__(
        self,
        scaled_outputs: Scaled | None = None,
        scaled_inputs: Scaled = (),  # pyright: ignore[reportArgumentType]
        shift: bool = True,
        layers: Layers | None = None,
        parts: Parts | None = None,
    ) -> None:
        super().__init__(layers, parts)
        self.outputs = None if scaled_outputs is None else expanded(scaled_outputs)
        self.inputs, self.shift = expanded(scaled_inputs), shift

    def attach(self, model: AdaptedModel) -> None:
        layers, outputs = self.chosen_layers(model), self.outputs
        if outputs is None:
            outputs = list({name: None for lay in layers for name in lay.projections})
        self.scales = []
        for layer, target in chosen_projections(self, model, outputs):
            size = layer.projections[target].out_features
            self._put_in(model, layer, target, size)
        for layer, target in chosen_projections(self, model, self.inputs):
            place = layer.projections[target]
            if not place.whole:
                raise UserError(
                    f"scaled_inputs={target}: {model.source} computes several "
                    "projections of one input together; scale their outputs."
                )
            self._put_in(model, layer, target + INPUT, place.in_features)
        unable = [place for place, site, _ in self.scales if self._lacks(place, site)]
        self.mergeable = not unable
        self.stuck = "a projection of this backbone has no bias to take its shift"

    def _put_in(
        self, model: AdaptedModel, layer: LayerPoints, site: str, size: int
    ) -> None:
        scale = ScaleShift(size, self.shift)
        place = layer.projections[site.removesuffix(INPUT)]
        self.hook(layer, site, model.add(self, layer, site, scale))
        self.scales.append((place, site, scale))

    def _lacks(self, place: Any, site: str) -> bool:
        return self.shift and place.bias is None

    def hook(self, layer: LayerPoints, site: str, module: Any) -> None:
        place = layer.projections[site.removesuffix(INPUT)]
        if site.endswith(INPUT):
            place.before(lambda x, mask: x + module(x))
        else:
            place.around(lambda x, out, mask: out + module(out))

    @torch.no_grad()
    def merge(self, model: AdaptedModel) -> None:
        self.originals = []
        for place, site, scale in self.scales:
            weight, bias, more = place.weight, place.bias, scale.gain - 1
            if site.endswith(INPUT):
                added = None if scale.shift is None else weight @ scale.shift
                original = place.fold(weight * more, added)
            else:
                added = scale.shift
                if bias is not None:
                    added = bias * more if added is None else bias * more + added
                original = place.fold(weight * more.unsqueeze(1), added)
            self.originals.append(original)

    def unmerge(self, model: AdaptedModel) -> None:
        for place, *_ in reversed(self.scales):
            place.unfold(self.originals.pop())
