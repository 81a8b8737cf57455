"""MambAdapter: narrow Mamba blocks between projections that all layers share (Ali et
al., arXiv 2606.15638)."""

from math import ceil, log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.kinds import Reduction, Size
from petl_modules.methods.adapters import zeroed
from petl_modules.methods.base import bottleneck_width
from petl_modules.methods.scan import selective_scan

GATE = 0.1  # what the learned scale of each layer begins as
SHORTEST, LONGEST = 1e-3, 1e-1  # between which the steps of channels begin


class MambaBlock(nn.Module):
    """Mamba's block (Gu and Dao, arXiv 2312.00752): two branches, of which one goes
    through a causal convolution and the selective scan, and the other gates it.

    Arguments
    ---------
    width : int
        Size r of what comes in and goes out.
    d_state : int
        States of each channel.
    d_conv : int
        Width of the convolution over time, in tokens.
    expand : int
        Channels inside, over r.
    """

    no_decay = ("a_log",)

    def __init__(self, width: int, d_state: int, d_conv: int, expand: int) -> None:
        super().__init__()
        inner, self.rank = expand * width, ceil(width / 16)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.select = nn.Linear(inner, self.rank + 2 * d_state, bias=False)
        self.step = nn.Linear(self.rank, inner)
        states = torch.arange(1, d_state + 1, dtype=torch.float32)
        self.a_log = nn.Parameter(states.log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.leave = nn.Linear(inner, width, bias=False)
        nn.init.uniform_(self.step.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():  # such that softplus of it lies between the two
            drawn = torch.rand(inner) * (log(LONGEST) - log(SHORTEST)) + log(SHORTEST)
            self.step.bias.copy_(drawn.exp().expm1().log())

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, time, width)` to the same; `mask` (batch, time), True if valid: what
        is not neither enters a state nor lets one fade."""
        x, gate = self.enter(x).chunk(2, -1)
        valid = None if mask is None else mask.unsqueeze(-1)
        if valid is not None:
            x = x * valid
        reach = self.conv.kernel_size[0] - 1
        x = F.silu(self.conv(F.pad(x.transpose(1, 2), (reach, 0))).transpose(1, 2))
        states = self.a_log.shape[1]
        step, b, c = self.select(x).split([self.rank, states, states], -1)
        step = F.softplus(self.step(step))
        if valid is not None:
            step = step * valid
        y = selective_scan(x, step, -self.a_log.exp(), b, c).to(x.dtype)
        return self.leave((y + self.skip * x) * F.silu(gate))


class SharedProjections(nn.Module):
    """The projections down and up of all layers of one width.

    Arguments
    ---------
    hidden_size, width : int
    """

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, width)
        self.up = zeroed(nn.Linear(width, hidden_size))


class Mamba(nn.Module):
    """`gate * up(mamba(down(x)))`; down and up are those of all layers. It reads no
    later token, and so suits decoders too.

    Arguments
    ---------
    hidden_size : int
        Size d of the tokens.
    rank : int or None
        Width r of the bottleneck, in the place of reduction_rate.
    reduction_rate : float
        The size of the tokens over the width r of the bottleneck, where no rank is
        given; of 768 at 48 that is r = 16.
    d_state : int
        States of each channel of Mamba's scan.
    d_conv : int
        Width of Mamba's causal convolution over time, in tokens.
    expand : int
        Channels inside a Mamba block, over r.
    """

    no_decay = ("block.a_log",)

    def __init__(
        self,
        hidden_size: int,
        rank: Size | None = None,
        reduction_rate: Reduction = 48,
        d_state: Size = 8,
        d_conv: Size = 24,
        expand: Size = 2,
    ) -> None:
        super().__init__()
        self.rank = bottleneck_width(hidden_size, rank, reduction_rate)
        self.block = MambaBlock(self.rank, d_state, d_conv, expand)
        self.gate = nn.Parameter(torch.full((), GATE))
        self.share(SharedProjections(hidden_size, self.rank))

    def share(self, shared: nn.Module) -> None:
        """Read through projections that are registered elsewhere."""
        self.__dict__["shared"] = shared

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, time, hidden)` to the same; `mask` (batch, time), True if valid."""
        shared: Any = self.shared
        return self.gate * shared.up(self.block(shared.down(x), mask))
