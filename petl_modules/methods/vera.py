"""VeRA: scales of random projections that all layers share (Kopiczko et al., arXiv
2310.11454)."""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.core.access_points import Projection
from petl_modules.core.adapted import AdaptedModel
from petl_modules.kinds import Count, Layers, Parts, Probability, Rate, Size
from petl_modules.methods.projections import (
    Targets,
    Update,
    WeightUpdates,
    chosen_projections,
)


class RandomProjections(nn.Module):
    """A `(rank, in_features)` and B `(out_features, rank)`, uniform by He's bound, that
    a number tells from all others; they never train, nor are they saved.

    Arguments
    ---------
    in_features, out_features, rank, seed : int
    """

    a: Tensor
    b: Tensor

    def __init__(
        self, in_features: int, out_features: int, rank: int, seed: int
    ) -> None:
        super().__init__()
        self.seed = seed
        # on the CPU, whose generator gives the same numbers everywhere
        generator = torch.Generator("cpu").manual_seed(seed)
        shapes = {"a": (rank, in_features), "b": (out_features, rank)}
        for name, shape in shapes.items():
            bound = sqrt(6 / shape[1])
            drawn = torch.empty(shape, device="cpu")
            drawn.uniform_(-bound, bound, generator=generator)
            self.register_buffer(name, drawn, persistent=False)


class VeRA(Update):
    """`b * (B (d * (A x)))`, to be added to a projection's output; of A and B the first
    columns and rows that fit.

    Arguments
    ---------
    in_features, out_features : int
        Of the projection.
    shared : RandomProjections
    d_initial : float
        What each of d begins as; b begins at zero.
    dropout : float
        Dropout of what the update reads.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        shared: RandomProjections,
        d_initial: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.in_features, self.shared = in_features, shared
        self.rank = len(shared.a)
        self.dropout = nn.Dropout(dropout)
        self.d = nn.Parameter(torch.full((len(shared.a),), d_initial))
        self.b = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`, whatever `out` is."""
        a, b = self.factors()
        return self.b * F.linear(self.d * F.linear(self.dropout(x), a), b)

    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B, as far as this projection reads them."""
        return self.shared.a[:, : self.in_features], self.shared.b[: len(self.b)]

    def delta(self) -> Tensor:
        """The update of the weight, `(out_features, in_features)`."""
        a, b = self.factors()
        return self.b.unsqueeze(1) * ((b * self.d) @ a)


class VeRAProjections(WeightUpdates):
    """VeRA on the projections named by `targets`.

    Arguments
    ---------
    targets : list of str
        The projections that get an update: q, k, v, o of self-attention, fc1 and fc2
        (or ffn for both) of the feed-forward block, and cross_q, cross_k, cross_v,
        cross_o of a decoder's attention to the encoder.
    rank : int
        Rank r of the random projections.
    d_initial : float
        What each scale between the two projections begins as.
    projection_seed : int
        The number that the random projections are drawn from.
    dropout : float
        Dropout of what the update reads.
    layers : list of int or None
        The layers that the method touches, such as [0, 1] or [-1]; null for all.
    parts : list of str or None
        The parts that it touches, encoder or decoder; null for all that there are.
    """

    def __init__(
        self,
        targets: Targets = ("q", "v"),  # pyright: ignore[reportArgumentType]
        rank: Size = 256,
        d_initial: Rate = 0.1,
        projection_seed: Count = 0,
        dropout: Probability = 0.0,
        layers: Layers | None = None,
        parts: Parts | None = None,
    ) -> None:
        super().__init__(targets, layers, parts)
        self.rank, self.seed = rank, projection_seed
        self.begin = {"d_initial": d_initial, "dropout": dropout}

    def attach(self, model: AdaptedModel) -> None:
        chosen = chosen_projections(self, model, self.targets)
        places = [layer.projections[target] for layer, target in chosen]
        widest = max(place.in_features for place in places)
        longest = max(place.out_features for place in places)
        self.form = (widest, longest, self.rank, self.seed)
        self.shared = RandomProjections(*self.form)
        super().attach(model)

    def update_of(self, place: Projection) -> VeRA:
        sizes = (place.in_features, place.out_features)
        return VeRA(*sizes, self.shared, **self.begin)
