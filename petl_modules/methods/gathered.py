"""Modules of several adapters at one place, side by side: one product takes every clip
through all of them, and of the narrow values a clip keeps those of its own adapter."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from petl_modules.methods.adalora import AdaLoRA
from petl_modules.methods.adapters import Bottleneck
from petl_modules.methods.lora import DoRA, LoRA, PiSSA
from petl_modules.methods.scale import ScaleShift
from petl_modules.methods.ssvd import SSVD
from petl_modules.methods.vera import VeRA


class GatheredBottleneck:
    """Several `Bottleneck` with one activation.

    Arguments
    ---------
    modules : list of Bottleneck or None
        One an adapter; None adds zeros.
    """

    @torch.no_grad()
    def __init__(self, modules: Sequence[Any]) -> None:
        present = [m for m in modules if m is not None]
        self.act = present[0].act
        self.owners = owners(modules, lambda m: m.down.out_features)
        self.down = torch.cat([m.down.weight for m in present])
        self.down_bias = torch.cat([m.down.bias for m in present])
        self.up = torch.cat([m.up.weight for m in present], 1)
        nothing = torch.zeros_like(present[0].up.bias)
        biases = [nothing if m is None else m.up.bias for m in modules]
        self.up_bias = torch.stack(biases).unsqueeze(1)

    def __call__(self, x: Tensor, clips: Tensor, mask: Any = None) -> Tensor:
        """`(batch, time, hidden)` and each clip's adapter `(batch,)` to the same."""
        narrow = self.act(F.linear(x, self.down, self.down_bias))
        own = self.owners == clips[:, None, None]
        return F.linear(narrow * own, self.up) + self.up_bias[clips]


class GatheredLoRA:
    """Several `LoRA`, `PiSSA`, `AdaLoRA` or `SSVD`.

    Arguments
    ---------
    modules : list of LoRA or None
        One an adapter; None adds zeros.
    """

    @torch.no_grad()
    def __init__(self, modules: Sequence[Any]) -> None:
        present = [m for m in modules if m is not None]
        factors = [m.factors() for m in present]
        self.owners = owners(modules, lambda m: len(m.factors()[0]))
        self.a = torch.cat([a for a, _ in factors])
        pairs = zip(present, factors, strict=True)
        self.b = torch.cat([b * m.scale for m, (_, b) in pairs], 1)

    def __call__(self, x: Tensor, clips: Tensor, out: Any = None) -> Tensor:
        """`(batch, time, in)` and each clip's adapter `(batch,)` to `(batch, time,
        out)`."""
        own = self.owners == clips[:, None, None]
        return F.linear(F.linear(x, self.a) * own, self.b)


class GatheredDoRA(GatheredLoRA):
    """Several `DoRA`.

    Arguments
    ---------
    modules : list of DoRA or None
        One an adapter; None adds zeros.
    """

    @torch.no_grad()
    def __init__(self, modules: Sequence[Any]) -> None:
        super().__init__(modules)
        self.place = next(m.place for m in modules if m is not None)
        same = torch.ones_like(next(m.magnitude for m in modules if m is not None))
        stretches = [same if m is None else m.stretch() for m in modules]
        self.stretch = torch.stack(stretches).unsqueeze(1)

    def __call__(self, x: Tensor, clips: Tensor, out: Any = None) -> Tensor:
        """As of several `LoRA`, with what the projection itself gives."""
        stretch, bias = self.stretch[clips], self.place.bias
        plain = out if bias is None else out - bias.to(out.dtype)
        return (stretch - 1) * plain + stretch * super().__call__(x, clips)


class GatheredVeRA:
    """Several `VeRA` of the same random projections.

    Arguments
    ---------
    modules : list of VeRA or None
        One an adapter; None adds zeros.
    """

    @torch.no_grad()
    def __init__(self, modules: Sequence[Any]) -> None:
        like = next(m for m in modules if m is not None)
        self.factors = like.factors()
        nothing = torch.zeros_like(like.d), torch.zeros_like(like.b)
        scales = [nothing if m is None else (m.d, m.b) for m in modules]
        self.d = torch.stack([d for d, _ in scales]).unsqueeze(1)
        self.b = torch.stack([b for _, b in scales]).unsqueeze(1)

    def __call__(self, x: Tensor, clips: Tensor, out: Any = None) -> Tensor:
        """`(batch, time, in)` and each clip's adapter `(batch,)` to `(batch, time,
        out)`."""
        a, b = self.factors
        return self.b[clips] * F.linear(self.d[clips] * F.linear(x, a), b)


class GatheredScaleShift:
    """Several `ScaleShift`.

    Arguments
    ---------
    modules : list of ScaleShift or None
        One an adapter; None adds zeros.
    """

    @torch.no_grad()
    def __init__(self, modules: Sequence[Any]) -> None:
        nothing = torch.zeros_like(next(m for m in modules if m is not None).gain)
        more = [nothing if m is None else m.gain - 1 for m in modules]
        shifts = [nothing if m is None or m.shift is None else m.shift for m in modules]
        self.more = torch.stack(more).unsqueeze(1)
        self.shift = torch.stack(shifts).unsqueeze(1)

    def __call__(self, x: Tensor, clips: Tensor) -> Tensor:
        """`(batch, time, channels)` and each clip's adapter `(batch,)` to the same."""
        return self.more[clips] * x + self.shift[clips]


GATHERED = {
    Bottleneck: GatheredBottleneck,
    LoRA: GatheredLoRA,
    PiSSA: GatheredLoRA,
    AdaLoRA: GatheredLoRA,
    SSVD: GatheredLoRA,
    DoRA: GatheredDoRA,
    VeRA: GatheredVeRA,
    ScaleShift: GatheredScaleShift,
}


def owners(modules: Sequence[Any], width_of: Callable[[Any], int]) -> Tensor:
    """The adapter of each narrow value, `(sum of widths,)`."""
    found = []
    for place, module in enumerate(modules):
        if module is not None:
            device = next(module.parameters()).device
            found.append(torch.full((width_of(module),), place, device=device))
    return torch.cat(found)
