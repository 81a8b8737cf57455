"""LoRA: low-rank updates of frozen projections (Hu et al., arXiv 2106.09685)."""

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from petl_modules.core.access_points import LayerPoints
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.kinds import Items, Layers, Parts, Probability, Range, Reduction, Size
from petl_modules.methods.base import Method, bottleneck_width

ALIASES = {"ffn": ("fc1", "fc2")}
Alpha = Annotated[float, Range(above=0, most=65_536)]
Own = Literal["q", "k", "v", "o", "fc1", "fc2", "ffn"]
Cross = Literal["cross_q", "cross_k", "cross_v", "cross_o"]
Targets = Annotated[list[Literal[Own, Cross]], Items(1)]


class LoRA(nn.Module):
    """`(alpha / r) B A x`, to be added to a projection's output.

    Arguments
    ---------
    hidden_size : int
        Size of the projection's input.
    rank : int or None
        Rank r of the update, in the place of reduction_rate.
    reduction_rate : float
        The size of a projection's input over the rank r, where no rank is given; of
        768 at 128 that is r = 6.
    alpha : float or None
        The update is scaled by alpha / r; null for no scaling.
    out_features : int or None
        Size of the projection's output; None for hidden_size.
    dropout : float
        Dropout of what the update reads.
    """

    def __init__(
        self,
        hidden_size: int,
        rank: Size | None = None,
        reduction_rate: Reduction = 128,
        alpha: Alpha | None = None,
        out_features: int | None = None,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.rank = rank = bottleneck_width(hidden_size, rank, reduction_rate)
        self.scale = (rank if alpha is None else alpha) / rank
        self.dropout = nn.Dropout(dropout)
        self.a = nn.Linear(hidden_size, rank, bias=False)
        self.b = nn.Linear(rank, out_features or hidden_size, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., hidden_size)` to `(..., out_features)`."""
        return self.b(self.a(self.dropout(x))) * self.scale

    def delta(self) -> Tensor:
        """The update of the weight, `(out_features, hidden_size)`."""
        return self.scale * (self.b.weight @ self.a.weight)


class LoRAProjections(Method):
    """LoRA on the projections named by `targets`.

    Arguments
    ---------
    targets : list of str
        The projections that get an update: q, k, v, o of self-attention, fc1 and fc2
        (or ffn for both) of the feed-forward block, and cross_q, cross_k, cross_v,
        cross_o of a decoder's attention to the encoder.
    layers : list of int or None
        The layers that the method touches, such as [0, 1] or [-1]; null for all.
    parts : list of str or None
        The parts that it touches, encoder or decoder; null for all that there are.
    **knobs
        For `LoRA`.
    """

    mergeable = True
    additive = True
    module = LoRA

    def __init__(
        self,
        targets: Targets = ("q", "v"),  # pyright: ignore[reportArgumentType]
        layers: Layers | None = None,
        parts: Parts | None = None,
        **knobs: Any,
    ) -> None:
        super().__init__(layers, parts)
        names = targets.split(",") if isinstance(targets, str) else targets
        names = [name.strip() for name in names]
        self.targets = [t for name in names for t in ALIASES.get(name, (name,))]
        self.module_knobs = knobs

    def attach(self, model: AdaptedModel) -> None:
        self.updates = []
        layers = self.chosen_layers(model)
        known = {name: None for layer in layers for name in layer.projections}
        for target in self.targets:
            if target not in known:
                raise UserError(
                    f"targets={target} matches no projection of this backbone: choose "
                    f"among {', '.join(known)}{' and ffn' if 'fc1' in known else ''}."
                )
        for layer in layers:
            for target in (t for t in self.targets if t in layer.projections):
                place = layer.projections[target]
                update = LoRA(
                    place.in_features,
                    out_features=place.out_features,
                    **self.module_knobs,
                )
                self.hook(layer, target, model.add(self, layer, target, update))
                self.updates.append((place, update))

    def hook(self, layer: LayerPoints, site: str, module: Any) -> None:
        layer.projections[site].around(lambda x, out, mask: out + module(x))

    @torch.no_grad()
    def merge(self, model: AdaptedModel) -> None:
        self.originals = [place.fold(update.delta()) for place, update in self.updates]

    def unmerge(self, model: AdaptedModel) -> None:
        for place, _ in reversed(self.updates):
            place.unfold(self.originals.pop())
