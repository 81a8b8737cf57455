"""Mixtures of adapters (Cappellazzo et al., arXiv 2402.00828), in their fast forms."""

from math import sqrt
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.errors import UserError, one_of
from petl_modules.kinds import Probability, Range, Reduction, Size
from petl_modules.methods.adapters import SameConv1d, quick_gelu
from petl_modules.methods.base import bottleneck_width

EXPERTS = ("bottleneck", "convpass")
Expert = Literal["bottleneck", "convpass"]
Experts = Annotated[int, Range(1, 1024)]
KERNEL, DROPOUT = 3, 0.1  # of convpass experts


def refuse_unread(expert: str = "bottleneck", **knobs: Any) -> None:
    """Raise a UserError for a knob of convpass experts where there are none."""
    for name in ("kernel_size", "dropout"):
        if expert != "convpass" and knobs.get(name) is not None:
            raise UserError(
                f"{name} is read by experts of the kind convpass alone: set "
                "expert=convpass too."
            )


def filled(knobs: dict[str, Any]) -> dict[str, Any]:
    """Knobs with what convpass experts take where nothing is said."""
    if knobs.get("expert") != "convpass":
        return knobs
    return {"kernel_size": KERNEL, "dropout": DROPOUT, **knobs}


class DenseMoA(nn.Module):
    """N adapters, mixed for each token by a softmax router.

    Computed as one gated wide bottleneck: one product gives all narrow features
    and the router's logits, the gates act in the narrow space, and one product
    with the up-projections (their biases are N more rows, read by the gates)
    gives the sum; no expert's full-width output is ever stored.

    Arguments
    ---------
    hidden_size : int
        Size d of the tokens.
    num_adapters : int
        The number N of experts.
    rank : int or None
        Width r of an expert, in the place of reduction_rate.
    reduction_rate : float
        The size of the tokens over the width r of an expert, where no rank is given.
    expert : str
        What the experts are.
    kernel_size : int or None
        Width of a convpass expert's convolution over time, in tokens, 3 by default.
    dropout : float or None
        Dropout of the narrow features of convpass experts, 0.1 by default.
    """

    no_decay = ("up_bias",)

    def __init__(
        self,
        hidden_size: int,
        num_adapters: Experts = 7,
        rank: Size | None = None,
        reduction_rate: Reduction = 128,
        expert: Expert = "bottleneck",
        kernel_size: Size | None = None,
        dropout: Probability | None = None,
    ) -> None:
        super().__init__()
        refuse_unread(expert, kernel_size=kernel_size, dropout=dropout)
        one_of("expert", expert, EXPERTS)
        self.num_adapters = num_adapters
        self.rank = bottleneck_width(hidden_size, rank, reduction_rate)
        narrow = num_adapters * self.rank
        self.down = nn.Linear(hidden_size, narrow + num_adapters)
        self.up = nn.Parameter(torch.zeros(narrow, hidden_size))
        self.up_bias = nn.Parameter(torch.zeros(num_adapters, hidden_size))
        self.expert = expert
        self.sees_later = expert == "convpass"
        if expert == "convpass":
            reach = kernel_size or KERNEL
            self.conv = SameConv1d(narrow, narrow, reach, groups=num_adapters)
            self.dropout = nn.Dropout(DROPOUT if dropout is None else dropout)

    refuse, filled = staticmethod(refuse_unread), staticmethod(filled)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, time, hidden)` to the same; `mask` (batch, time), True if valid."""
        narrow, logits = self.down(x).split(
            [self.num_adapters * self.rank, self.num_adapters], dim=-1
        )
        if self.expert == "convpass":
            narrow = self.conv(quick_gelu(narrow), mask)
            narrow = self.dropout(quick_gelu(narrow))
        else:
            narrow = F.gelu(narrow)
        gates = logits.softmax(-1)
        gated = narrow.unflatten(-1, (self.num_adapters, -1)) * gates.unsqueeze(-1)
        gated = torch.cat([gated.flatten(-2), gates.to(gated.dtype)], -1)
        return gated @ torch.cat([self.up, self.up_bias])


class SoftMoA(nn.Module):
    """Soft mixture of N adapters with p slots each (Puigcerver et al. 2308.00951).

    Every slot reads a convex combination of the valid tokens, every token a
    convex combination of the slots' outputs; all experts run as one batched
    product. A convpass expert's convolution runs over its own slots.

    Arguments
    ---------
    hidden_size : int
        Size d of the tokens.
    num_adapters : int
        The number N of experts.
    num_slots : int
        The number p of slots that each expert has.
    rank : int or None
        Width r of an expert, in the place of reduction_rate.
    reduction_rate : float
        The size of the tokens over the width r of an expert, where no rank is given.
    normalize : bool
        Whether tokens and slots are L2-normalised for the logits (and for these only),
        with a learned scale.
    expert : str
        What the experts are.
    kernel_size : int or None
        Width of a convpass expert's convolution, in slots, 3 by default.
    dropout : float or None
        Dropout of the narrow features of convpass experts, 0.1 by default.
    """

    no_decay = ("down_bias", "up_bias")
    sees_later = True

    def __init__(
        self,
        hidden_size: int,
        num_adapters: Experts = 7,
        num_slots: Experts = 1,
        rank: Size | None = None,
        reduction_rate: Reduction = 128,
        normalize: bool = False,
        expert: Expert = "bottleneck",
        kernel_size: Size | None = None,
        dropout: Probability | None = None,
    ) -> None:
        super().__init__()
        refuse_unread(expert, kernel_size=kernel_size, dropout=dropout)
        one_of("expert", expert, EXPERTS)
        d, n, p = hidden_size, num_adapters, num_slots
        self.rank = r = bottleneck_width(d, rank, reduction_rate)
        # Xavier-normal with the fans of the matrix d x (n p)
        self.slots = nn.Parameter(torch.randn(d, n, p) * sqrt(2 / (d + n * p)))
        self.scale = nn.Parameter(torch.ones(())) if normalize else None
        self.down = nn.Parameter(torch.empty(n, d, r).uniform_(-1, 1) / sqrt(d))
        self.down_bias = nn.Parameter(torch.empty(n, 1, r).uniform_(-1, 1) / sqrt(d))
        self.up = nn.Parameter(torch.zeros(n, r, d))
        self.up_bias = nn.Parameter(torch.zeros(n, 1, d))
        self.expert = expert
        if expert == "convpass":
            self.conv = SameConv1d(n * r, n * r, kernel_size or KERNEL, groups=n)
            self.dropout = nn.Dropout(DROPOUT if dropout is None else dropout)

    refuse, filled = staticmethod(refuse_unread), staticmethod(filled)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, time, hidden)` to the same; `mask` (batch, time), True if valid."""
        batch, _, d = x.shape
        n, p = self.slots.shape[1:]
        logits = self._logits(x)  # (batch, time, n p)
        combine = logits.softmax(-1).to(x.dtype)
        if mask is not None:
            logits = logits.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        dispatch = logits.softmax(1).to(x.dtype)
        inputs = dispatch.transpose(1, 2) @ x  # (batch, n p, d)
        inputs = inputs.view(batch, n, p, d).transpose(0, 1).reshape(n, batch * p, d)
        narrow = torch.baddbmm(self.down_bias, inputs, self.down)
        if self.expert == "convpass":
            narrow = self._convolved(narrow.view(n, batch, p, -1)).flatten(1, 2)
        else:
            narrow = F.gelu(narrow)
        outputs = torch.baddbmm(self.up_bias, narrow, self.up)
        outputs = outputs.view(n, batch, p, d).transpose(0, 1).reshape(batch, n * p, d)
        return combine @ outputs

    def _convolved(self, narrow: Tensor) -> Tensor:
        """Narrow features `(experts, batch, slots, width)` through every expert's own
        convolution."""
        n = narrow.shape[0]
        channels = quick_gelu(narrow).permute(1, 2, 0, 3).flatten(2)
        channels = self.dropout(quick_gelu(self.conv(channels)))
        return channels.unflatten(2, (n, -1)).permute(2, 0, 1, 3)

    def _logits(self, x: Tensor) -> Tensor:
        slots = self.slots.flatten(1)
        if self.scale is None:
            return x @ slots
        return F.normalize(x, dim=-1) @ (self.scale * F.normalize(slots, dim=0))
