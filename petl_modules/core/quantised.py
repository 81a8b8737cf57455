"""Frozen Linears of eight or four bits a weight, as bitsandbytes packs them.

int8 has one scale a row (Dettmers et al., arXiv 2208.07339), nf4 the sixteen quantiles
of a normal distribution and one scale for 64 weights (arXiv 2305.14314). Weights are
unpacked where they are read; what is read stays as it is.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.errors import UserError

KINDS = ("int8", "nf4")
BLOCK = 64  # weights that share a scale, of nf4


class PackedLinear(nn.Linear):
    """A frozen Linear whose weight is packed; its bias may train.

    `weight` has its shape, type and device, and no memory: it is NaN, so that whoever
    reads it past `unpacked` finds out.
    """

    packed: Tensor
    scales: Tensor
    kind: str

    def forward(self, input: Tensor) -> Tensor:
        shape = (self.out_features, self.in_features)
        output: Any = Product.apply(input, self.packed, self.scales, self.kind, shape)
        return output if self.bias is None else output + self.bias.to(output.dtype)


class Product(torch.autograd.Function):
    """`input @ weight.T` of a packed weight, which is unpacked again for the backward
    pass: nothing is kept for it."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        packed: Tensor,
        scales: Tensor,
        kind: str,
        shape: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(packed, scales)
        ctx.kind, ctx.shape = kind, shape
        return F.linear(input, wide(packed, scales, kind, shape, input.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        weight = wide(*ctx.saved_tensors, ctx.kind, ctx.shape, gradient.dtype)
        return gradient @ weight, None, None, None, None


def pack(module: nn.Linear, kind: str, dtype: torch.dtype) -> None:
    """Pack a Linear's weight in place; elsewhere it counts as one of `dtype`."""
    library = bitsandbytes()
    weight = module.weight.detach()
    if kind == "int8":  # its kernel reads half precision
        packed, scales, _ = library.int8_vectorwise_quant(weight.half().contiguous())
    else:
        packed, state = library.quantize_4bit(
            weight.float().contiguous(), blocksize=BLOCK, quant_type="nf4"
        )
        scales = state.absmax
    module.register_buffer("packed", packed, persistent=False)
    module.register_buffer("scales", scales, persistent=False)
    nothing = torch.full((), torch.nan, dtype=dtype, device=weight.device)
    module.weight.data = nothing.expand(weight.shape)
    own: Any = module
    own.kind, own.__class__ = kind, PackedLinear


def put_back(module: nn.Module) -> None:
    """Make a packed Linear an ordinary one again, but for its weight."""
    own: Any = module
    del own.packed, own.scales, own.kind
    own.__class__ = nn.Linear


def unpacked(module: nn.Module) -> Tensor:
    """A Linear's weight as it is computed with, `(out_features, in_features)`."""
    weight: Any = module.weight
    if not isinstance(module, PackedLinear):
        return weight
    size = (module.out_features, module.in_features)
    return wide(module.packed, module.scales, module.kind, size, weight.dtype)


def frozen_linears(modules: Sequence[nn.Module]) -> list[nn.Linear]:
    """The Linears within some modules whose weights do not train, each once."""
    found = {m: None for module in modules for m in module.modules()}
    plain = (m for m in found if type(m) is nn.Linear)
    return [m for m in plain if not m.weight.requires_grad]


# Helpers


def wide(
    packed: Tensor,
    scales: Tensor,
    kind: str,
    shape: tuple[int, int],
    dtype: torch.dtype,
) -> Tensor:
    """A weight of `dtype` from what `pack` made of it."""
    ops = torch.ops.bitsandbytes
    if kind == "int8":
        return ops.int8_vectorwise_dequant(packed, scales).to(dtype)
    return ops.dequantize_4bit(packed, scales, BLOCK, kind, shape, dtype)


def bitsandbytes() -> Any:
    """The library's functions.

    Raises
    ------
    UserError
        If it is not installed.
    """
    # it looks for a faster product on CPUs, and warns where there is none
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        from bitsandbytes import functional
    except ImportError:
        raise UserError(
            "base_precision=int8 and nf4 need bitsandbytes: pip install -e .[quantised]"
        ) from None
    return functional
