"""The selective scan of Mamba (Gu and Dao, arXiv 2312.00752), in PyTorch.

`h_t = exp(step_t A) h_{t-1} + step_t B_t u_t`, `y_t = C_t h_t`, each channel with a
state of its own. A linear recurrence is associative, so that it is cut into pieces:
inside all pieces together step by step, then from piece to piece by one product. No
loop is as long as the clip.
"""

from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = 16  # steps that are walked through one after the other
KERNEL = find_spec("mamba_ssm") is not None


def selective_scan(u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """What the states of a sequence give.

    Arguments
    ---------
    u : torch.Tensor
        What is read, `(batch, time, channels)`.
    step : torch.Tensor
        How long each time step takes, 0 for one that changes nothing (padding),
        `(batch, time, channels)`.
    a : torch.Tensor
        How fast states fade, below 0, `(channels, states)`.
    b, c : torch.Tensor
        What states take in and give, `(batch, time, states)`.

    Returns
    -------
    torch.Tensor
        `(batch, time, channels)`.
    """
    if KERNEL and u.device.type == "cuda" and not torch.compiler.is_compiling():
        return fused(u, step, a, b, c).to(c.dtype)
    length = u.shape[1]
    short = -length % PIECE
    u, step, b = (F.pad(t.float(), (0, 0, 0, short)) for t in (u, step, b))
    fades = step.unsqueeze(-1) * a.float()
    taken = (step * u).unsqueeze(-1) * b.unsqueeze(2)
    states = recurrence(fades, taken)[:, :length]
    return (states * c.float().unsqueeze(2)).sum(-1).to(c.dtype)


def recurrence(fades: Tensor, taken: Tensor) -> Tensor:
    """`h_t = exp(fades_t) h_{t-1} + taken_t` from nothing on.

    Arguments
    ---------
    fades, taken : torch.Tensor
        `(batch, time, channels, states)`, time a multiple of `PIECE`; fades are 0 or
        less, so that no exponential grows.

    Returns
    -------
    torch.Tensor
        Of the same shape.
    """
    fades, taken = (t.unflatten(1, (-1, PIECE)) for t in (fades, taken))
    kept = fades.exp()
    inside, h = [], torch.zeros_like(taken[:, :, 0])
    for keep, take in zip(kept.unbind(2), taken.unbind(2), strict=True):
        h = torch.addcmul(take, keep, h)
        inside.append(h)
    states = torch.stack(inside, 2)
    faded = fades.cumsum(2)  # from the start of a piece to each of its steps
    # what a piece hands to those after it fades by all that lie between
    whole = faded[:, :, -1].cumsum(1)  # (batch, pieces, channels, states)
    before = F.pad(whole, (0, 0, 0, 0, 1, 0))[:, :-1]
    pieces = whole.shape[1]
    earlier = torch.ones(pieces, pieces, dtype=torch.bool, device=whole.device)
    earlier = earlier.tril(-1)[:, :, None, None]
    between = before.unsqueeze(2) - whole.unsqueeze(1)
    between = between.masked_fill(~earlier, -torch.inf).exp()
    handed = torch.einsum("bijcn,bjcn->bicn", between, h)
    return torch.addcmul(states, faded.exp(), handed.unsqueeze(2)).flatten(1, 2)


def fused(u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The same by the CUDA kernel of the package mamba_ssm."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    kernel: Any = selective_scan_fn
    u, step, b, c = (t.float().transpose(1, 2).contiguous() for t in (u, step, b, c))
    return kernel(u, step, a.float(), b, c).transpose(1, 2)
