"""Modules of several adapters at one place, side by side: one product takes every clip
through all of them, and of the narrow values a clip keeps those of its own adapter."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from petl_modules.methods.adapters import Bottleneck
from petl_modules.methods.lora import LoRA


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

    def __call__(self, x: Tensor, clips: Tensor) -> Tensor:
        """`(batch, time, hidden)` and each clip's adapter `(batch,)` to the same."""
        narrow = self.act(F.linear(x, self.down, self.down_bias))
        own = self.owners == clips[:, None, None]
        return F.linear(narrow * own, self.up) + self.up_bias[clips]


class GatheredLoRA:
    """Several `LoRA`.

    Arguments
    ---------
    modules : list of LoRA or None
        One an adapter; None adds zeros.
    """

    @torch.no_grad()
    def __init__(self, modules: Sequence[Any]) -> None:
        present = [m for m in modules if m is not None]
        self.owners = owners(modules, lambda m: m.a.out_features)
        self.a = torch.cat([m.a.weight for m in present])
        self.b = torch.cat([m.b.weight * m.scale for m in present], 1)

    def __call__(self, x: Tensor, clips: Tensor) -> Tensor:
        """`(batch, time, in)` and each clip's adapter `(batch,)` to `(batch, time,
        out)`."""
        own = self.owners == clips[:, None, None]
        return F.linear(F.linear(x, self.a) * own, self.b)


GATHERED = {Bottleneck: GatheredBottleneck, LoRA: GatheredLoRA}


def owners(modules: Sequence[Any], width_of: Callable[[Any], int]) -> Tensor:
    """The adapter of each narrow value, `(sum of widths,)`."""
    found = []
    for place, module in enumerate(modules):
        if module is not None:
            device = next(module.parameters()).device
            found.append(torch.full((width_of(module),), place, device=device))
    return torch.cat(found)
