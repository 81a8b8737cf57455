"""SSVD: the largest right singular directions of weights, rotated and scaled (Wang et
al., arXiv 2509.02830)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.core.access_points import Projection
from petl_modules.errors import UserError
from petl_modules.kinds import Layers, Parts, Size
from petl_modules.methods.projections import Targets, Update, WeightUpdates


class SSVD(Update):
    """`U ((S + sigmoid(g) s) R - S) V x`, to be added to a projection's output, with
    U, S and V the k largest singular values of its weight and their directions.

    R is a rotation, the Cayley transform `(I - K) (I + K)^-1` of a skew-symmetric K.
    K and s begin at zero. U, S and V are kept with the adapter, since a decomposition
    found again may differ in signs.

    Arguments
    ---------
    place : Projection
    k : int
    written_over : bool
        Whether U, S and V will be written over.
    """

    scale = 1.0
    u: Tensor
    s: Tensor
    v: Tensor
    above: Tensor

    def __init__(self, place: Projection, k: int, written_over: bool) -> None:
        super().__init__()
        most = min(place.in_features, place.out_features)
        if k > most:
            raise UserError(
                f"rank={k} of ssvd is more than the {most} singular directions of a "
                "projection."
            )
        weight = place.weight.detach().float()
        self.rank, (rows, columns) = k, weight.shape
        if written_over:
            u, s, v = (weight.new_zeros(n) for n in ((rows, k), (k,), (k, columns)))
        else:
            u, s, v = torch.linalg.svd(weight, full_matrices=False)
        for name, tensor in {"u": u[:, :k], "s": s[:k], "v": v[:k]}.items():
            self.register_buffer(
                name, tensor.clone(memory_format=torch.contiguous_format)
            )
        rows, columns = torch.triu_indices(k, k, 1, device=weight.device)
        self.register_buffer("above", rows * k + columns, persistent=False)
        self.skew = nn.Parameter(torch.zeros(k * (k - 1) // 2))
        self.stretch = nn.Parameter(torch.zeros(k))
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`, whatever `out` is."""
        narrow = F.linear(F.linear(x, self.v), self.change())
        return F.linear(narrow, self.u)

    def change(self) -> Tensor:
        """What is added between V and U, `(k, k)`."""
        with torch.autocast(self.s.device.type, enabled=False):
            values = self.s + torch.sigmoid(self.gate) * self.stretch
            return values.unsqueeze(1) * self.rotation() - torch.diag(self.s)

    def rotation(self) -> Tensor:
        """R, `(k, k)`."""
        k = len(self.s)
        upper = self.skew.new_zeros(k * k).scatter(0, self.above, self.skew).view(k, k)
        skew = upper - upper.T
        one = torch.eye(k, device=skew.device)
        # the two factors commute; and to ask whether it went well would wait
        return torch.linalg.solve_ex(one + skew, one - skew).result

    def factors(self) -> tuple[Tensor, Tensor]:
        """A `(k, in_features)` and B `(out_features, k)` of the update `B A`."""
        return self.v, self.u @ self.change()

    def delta(self) -> Tensor:
        """The update of the weight, `(out_features, in_features)`."""
        a, b = self.factors()
        return b @ a


class SSVDProjections(WeightUpdates):
    """SSVD on the projections named by `targets`.

    Arguments
    ---------
    targets : list of str
        The projections that get an update: q, k, v, o of self-attention, fc1 and fc2
        (or ffn for both) of the feed-forward block, and cross_q, cross_k, cross_v,
        cross_o of a decoder's attention to the encoder.
    rank : int
        The number k of singular directions that are rotated and scaled.
    layers : list of int or None
        The layers that the method touches, such as [0, 1] or [-1]; null for all.
    parts : list of str or None
        The parts that it touches, encoder or decoder; null for all that there are.
    """

    def __init__(
        self,
        targets: Targets = ("q", "v"),  # pyright: ignore[reportArgumentType]
        rank: Size = 64,
        layers: Layers | None = None,
        parts: Parts | None = None,
    ) -> None:
        super().__init__(targets, layers, parts)
        self.rank = rank

    def update_of(self, place: Projection) -> SSVD:
        return SSVD(place, self.rank, self.written_over)
