"""Modules of several adapters at one place, stacked, so that one batched product takes
every clip through those of its own adapter."""

import torch

from petl_modules.methods.adapters import Bottleneck
from petl_modules.methods.lora import LoRA


class GatheredBottleneck:
    """Several `Bottleneck` with one activation; narrow ones are filled up with zeros.

    Arguments
    ---------
    modules : list of Bottleneck or None
        One an adapter; None adds zeros.
    """

    def __init__(self, modules):
        self.act = next(m.act for m in modules if m is not None)
        self.down = stacked(modules, lambda m: m.down.weight.T)
        self.down_bias = stacked(modules, lambda m: m.down.bias.unsqueeze(0))
        self.up = stacked(modules, lambda m: m.up.weight.T)
        self.up_bias = stacked(modules, lambda m: m.up.bias.unsqueeze(0))

    def __call__(self, x, clips):
        """`(batch, time, hidden)` and each clip's adapter `(batch,)` to the same."""
        narrow = self.act(torch.baddbmm(self.down_bias[clips], x, self.down[clips]))
        return torch.baddbmm(self.up_bias[clips], narrow, self.up[clips])


class GatheredLoRA:
    """Several `LoRA`; those of low rank are filled up with zeros.

    Arguments
    ---------
    modules : list of LoRA or None
        One an adapter; None adds zeros.
    """

    def __init__(self, modules):
        self.a = stacked(modules, lambda m: m.a.weight.T)
        self.b = stacked(modules, lambda m: m.b.weight.T * m.scale)

    def __call__(self, x, clips):
        """`(batch, time, in)` and each clip's adapter `(batch,)` to `(batch, time,
        out)`."""
        return torch.bmm(torch.bmm(x, self.a[clips]), self.b[clips])


GATHERED = {Bottleneck: GatheredBottleneck, LoRA: GatheredLoRA}


@torch.no_grad()
def stacked(modules, tensor_of):
    """`(modules, ...)`: a tensor of each, filled up with zeros to the largest."""
    tensors = [None if m is None else tensor_of(m) for m in modules]
    present = [tensor for tensor in tensors if tensor is not None]
    sizes = zip(*(tensor.shape for tensor in present), strict=True)
    stack = present[0].new_zeros(len(modules), *map(max, sizes))
    for place, tensor in zip(stack, tensors, strict=True):
        if tensor is not None:
            place[tuple(map(slice, tensor.shape))] = tensor
    return stack
