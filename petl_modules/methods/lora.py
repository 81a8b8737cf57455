"""LoRA and its variants: low-rank updates of frozen projections."""

from math import sqrt
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.core.access_points import Projection
from petl_modules.errors import UserError
from petl_modules.kinds import Layers, Parts, Probability, Range, Reduction, Size
from petl_modules.methods.base import bottleneck_width
from petl_modules.methods.projections import (
    Targets,
    Update,
    WeightUpdates,
    product_onto,
)

Alpha = Annotated[float, Range(above=0, most=65_536)]
Variant = Literal["lora", "rslora", "dora", "pissa", "lora_fa"]


class LowRankUpdate(Update):
    """`s B A x`, to be added to a projection's output: what the variants of LoRA share.

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
        The update is scaled by alpha / r, in rslora by alpha / sqrt(r); null for an
        alpha of r.
    out_features : int or None
        Size of the projection's output; None for hidden_size.
    dropout : float
        Dropout of what the update reads.
    variant : str
        Which LoRA: the plain one; rslora, whose scale does not fade with the rank
        (arXiv 2312.03732); dora, which trains the length of each of the weight's rows
        apart from its direction (2402.09353); pissa, which begins as the weight's own
        largest singular directions (2404.02948); lora_fa, where B alone trains
        (2308.03303).
    """

    def __init__(
        self,
        hidden_size: int,
        rank: Size | None = None,
        reduction_rate: Reduction = 128,
        alpha: Alpha | None = None,
        out_features: int | None = None,
        dropout: Probability = 0.0,
        variant: Variant = "lora",
    ) -> None:
        super().__init__()
        self.rank = rank = bottleneck_width(hidden_size, rank, reduction_rate)
        divisor = sqrt(rank) if variant == "rslora" else rank
        self.scale = (rank if alpha is None else alpha) / divisor
        self.dropout = nn.Dropout(dropout)
        self.a = nn.Linear(hidden_size, rank, bias=False)
        self.b = nn.Linear(rank, out_features or hidden_size, bias=False)
        self.a.requires_grad_(variant != "lora_fa")
        nn.init.zeros_(self.b.weight)

    def start(self, place: Projection, written_over: bool) -> None:
        """Begin at a projection; what will be written over need not be found."""

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """`(..., hidden_size)` to `(..., out_features)`, whatever `out` is."""
        return self.b(self.a(self.dropout(x))) * self.scale

    def factors(self) -> tuple[Tensor, Tensor]:
        """A `(r, hidden_size)` and B `(out_features, r)` of the update `s B A`."""
        return self.a.weight, self.b.weight

    def delta(self) -> Tensor:
        """The update of the weight, `(out_features, hidden_size)`."""
        a, b = self.factors()
        return self.scale * (b @ a)


class LoRA(LowRankUpdate):
    """`s B A x` (Hu et al., arXiv 2106.09685), added as part of a product."""

    def onto(self, out: Tensor, x: Tensor) -> Tensor:
        a, b = self.a.weight, self.b.weight
        scaled = a if self.scale == 1 else a * self.scale
        return product_onto(out, self.dropout(x), (scaled, b))


class PiSSA(LowRankUpdate):
    """`s (B A - B0 A0) x`, where `s B0 A0` is the weight W's best approximation of rank
    r and B A begins as B0 A0 (Meng et al., arXiv 2404.02948).

    That is LoRA on what of W is left without `s B0 A0`, while the base itself stays as
    it is. A0 and B0 are kept with the adapter.
    """

    a0: Tensor
    b0: Tensor

    def start(self, place: Projection, written_over: bool) -> None:
        for name, factor in (("a0", self.a), ("b0", self.b)):
            self.register_buffer(name, factor.weight.detach().clone())
        rank, most = len(self.a0), min(place.in_features, place.out_features)
        if rank > most:
            raise UserError(
                f"rank={rank} is more than the {most} singular directions of a "
                "projection: variant=pissa takes no more."
            )
        if not written_over:
            u, s, v = torch.linalg.svd(place.weight.float(), full_matrices=False)
            roots = (s[:rank] / self.scale).sqrt()
            with torch.no_grad():
                self.a0.copy_(roots.unsqueeze(1) * v[:rank])
                self.b0.copy_(u[:, :rank] * roots)
                self.a.weight.copy_(self.a0)
                self.b.weight.copy_(self.b0)

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        begun = F.linear(F.linear(x, self.a0), self.b0)
        return (self.b(self.a(self.dropout(x))) - begun) * self.scale

    def factors(self) -> tuple[Tensor, Tensor]:
        a = torch.cat([self.a.weight, self.a0])
        return a, torch.cat([self.b.weight, -self.b0], 1)


class DoRA(LowRankUpdate):
    """`m (W + s B A) x / |W + s B A|` in the place of `W x`, with a length m for every
    row (Liu et al., arXiv 2402.09353); the norm is taken as a constant in the backward
    pass, as the paper proposes.
    """

    squares: Tensor

    def start(self, place: Projection, written_over: bool) -> None:
        self.place = place
        squares = place.weight.detach().float().square().sum(1)
        self.register_buffer("squares", squares, persistent=False)
        self.magnitude = nn.Parameter(squares.sqrt())

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        assert out is not None
        bias, stretch = self.place.bias, self.stretch()
        plain = out if bias is None else out - bias.to(out.dtype)
        return (stretch - 1) * plain + stretch * super().forward(x)

    def stretch(self) -> Tensor:
        """`m / |W + s B A|`, `(out_features,)`."""
        return self.magnitude / self.norm().clamp(min=1e-12)

    @torch.no_grad()
    def norm(self) -> Tensor:
        """The length of each row of W + s B A, of its products with A and B alone."""
        with torch.autocast(self.squares.device.type, enabled=False):
            a, b = self.a.weight, self.b.weight * self.scale
            along = (b * (self.place.weight.to(a.dtype) @ a.T)).sum(1)
            own = ((b @ (a @ a.T)) * b).sum(1)
            return (self.squares + 2 * along + own).clamp(min=0).sqrt()

    def delta(self) -> Tensor:
        weight = self.place.weight
        return self.stretch().unsqueeze(1) * (weight + super().delta()) - weight


KINDS = {"pissa": PiSSA, "dora": DoRA}


class LoRAProjections(WeightUpdates):
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

    module = LoRA

    def __init__(
        self,
        targets: Targets = ("q", "v"),  # pyright: ignore[reportArgumentType]
        layers: Layers | None = None,
        parts: Parts | None = None,
        **knobs: Any,
    ) -> None:
        super().__init__(targets, layers, parts)
        self.module_knobs = knobs
        self.kind = KINDS.get(knobs.get("variant", "lora"), LoRA)
        self.form = (self.kind is DoRA,)

    def update_of(self, place: Projection) -> LowRankUpdate:
        sizes = {"hidden_size": place.in_features, "out_features": place.out_features}
        update = self.kind(**sizes, **self.module_knobs)
        update.start(place, self.written_over)
        return update
