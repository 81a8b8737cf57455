"""A frozen model held in bfloat16 or fewer bits; what trains in it stays in float32.

Autocast keeps frozen weights in float32, casts them in every step, and keeps what
flows between blocks, and what norms read and write, in float32 too. A base that is held
in bfloat16 has none of that; what trains is cast where it meets the base, as autocast
would do it, and its gradients and optimizer state stay in float32.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.core.hooks import Hooks
from petl_modules.core.quantised import KINDS, frozen_linears, pack, put_back
from petl_modules.errors import UserError, one_of

if TYPE_CHECKING:
    from petl_modules.core.adapted import AdaptedModel

logger = logging.getLogger(__name__)

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    **dict.fromkeys(KINDS, torch.bfloat16),  # all but the layers' Linears
}


def hold_base(model: "AdaptedModel", precision: str) -> None:
    """Hold what is frozen in a type of its own.

    Nothing is held in full fine-tuning, and fingerprint, adapter file and merging are
    those of float32.

    Arguments
    ---------
    model : AdaptedModel
    precision : str
        fp32, bf16, or int8 or nf4: the weights of the layers' Linears are packed, and
        all else is bf16.

    Raises
    ------
    UserError
        For another precision, a backbone that runs in float32 alone, a method that
        trains what would be packed, or if bitsandbytes is missing.
    """
    one_of("base_precision", precision, DTYPES)
    if precision in KINDS and model.awake:
        raise UserError(
            f"base_precision={precision}: {model.methods[0].name} trains weights of "
            "the backbone, which stay in float32."
        )
    bound = [method.name for method in model.methods if method.reads_weights]
    if precision in KINDS and bound:
        raise UserError(
            f"base_precision={precision}: {bound[0]} reads the weights of projections "
            "by itself, and cannot read packed ones: take bf16."
        )
    if model.held is not None:
        if model.held.precision in KINDS:
            logger.warning(
                "The base was held in %s, and is float32 again: what was trained "
                "beside it now meets the weights as they were loaded.",
                model.held.precision,
            )
        model.held.release()
        model.held = None
    narrow = precision != "fp32" and not model.awake
    if narrow and not can_be_held(model):
        raise UserError(
            f"base_precision={precision}: {model.source} runs in float32 alone."
        )
    if narrow:
        layers = [p.module for points in model.parts.values() for p in points.layers]
        model.held = HeldModel(model.backbone.model, precision, layers)
    for points in model.parts.values():
        points.hooks.held = narrow


def base_precision(model: "AdaptedModel") -> str:
    """What the frozen part of a model is held in, of `DTYPES`."""
    return "fp32" if model.held is None else model.held.precision


def can_be_held(model: "AdaptedModel") -> bool:
    """Whether a model's backbone can run in a narrow type."""
    return getattr(model.backbone, "can_be_held", False)


class HeldModel:
    """A model whose frozen tensors are held in a narrow type.

    The float32 tensors wait on the CPU until `release` puts them back, bit by bit.

    Arguments
    ---------
    model : torch.nn.Module
        Pretrained; which of its parameters are frozen `requires_grad` says.
    precision : str
        Of `DTYPES`.
    layers : list of torch.nn.Module
        Whose Linears are packed under int8 and nf4.
    """

    def __init__(
        self, model: nn.Module, precision: str, layers: Sequence[nn.Module] = ()
    ) -> None:
        self.precision, dtype = precision, DTYPES[precision]
        self.originals: dict[Tensor, Tensor] = {}
        self.classes: dict[nn.Module, type] = {}
        self.packed = frozen_linears(layers) if precision in KINDS else []
        for module in self.packed:
            self.originals[module.weight] = module.weight.data.cpu()
            pack(module, precision, dtype)
        scales = {module.scales for module in self.packed}
        for tensor in (*model.parameters(), *model.buffers()):
            frozen = tensor.is_floating_point() and not tensor.requires_grad
            if frozen and tensor not in self.originals and tensor not in scales:
                self.originals[tensor] = tensor.data.cpu()
                tensor.data = tensor.data.to(dtype)
        for module in model.modules():
            mixed = any(p.requires_grad for p in module.parameters(recurse=False))
            if mixed and type(module) in CASTING:
                self.classes[module] = type(module)
                module.__class__ = CASTING[type(module)]

    def release(self) -> None:
        """Put the float32 tensors back."""
        for module in self.packed:
            put_back(module)
        for tensor, original in self.originals.items():
            tensor.data = original.to(tensor.device)
        for module, own in self.classes.items():
            module.__class__ = own


class CastingLinear(nn.Linear):
    """A Linear whose parameters take the type of what it reads."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, *cast(self, input))


class CastingLayerNorm(nn.LayerNorm):
    """The same for LayerNorm."""

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(
            input, self.normalized_shape, *cast(self, input), eps=self.eps
        )


class CastingConv1d(nn.Conv1d):
    """The same for Conv1d."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, *cast(self, input))


CASTING = {
    nn.Linear: CastingLinear,
    nn.LayerNorm: CastingLayerNorm,
    nn.Conv1d: CastingConv1d,
}


def cast(module: nn.Module, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """A module's weight and bias in the type of a tensor."""
    weight: Any = module.weight
    bias: Any = module.bias
    bias = None if bias is None else bias.to(like.dtype)
    return weight.to(like.dtype), bias


def exact_convolutions(model: nn.Module) -> None:
    """Let the convolutions of a model that bfloat16 may get wrong go by float32; see
    `convolved`."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d) and is_wide_and_even(module):
            own: Any = module
            own._conv_forward = MethodType(convolved, module)


def convolved(
    module: nn.Conv1d | nn.Conv2d, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """What a convolution computes of `input`, in the place of its `_conv_forward`.

    On CPUs with AMX the oneDNN of torch 2.11 gets even kernels of 8 and more wrong in
    bfloat16; float32 takes their place, and its result is rounded.
    """
    plain: Any = nn.Conv1d if isinstance(module, nn.Conv1d) else nn.Conv2d
    kind, narrow = input.device.type, input.dtype
    if torch.is_autocast_enabled(kind):
        narrow = torch.get_autocast_dtype(kind)
    wrong = kind == "cpu" and narrow == torch.bfloat16 and is_wide_and_even(module)
    if not wrong:
        return plain._conv_forward(module, input, weight, bias)
    bias = None if bias is None else bias.float()
    with torch.autocast(kind, enabled=False):
        out = plain._conv_forward(module, input.float(), weight.float(), bias)
    return out.to(narrow)


def is_wide_and_even(module: nn.Conv1d | nn.Conv2d) -> bool:
    """Whether a convolution has an even kernel of 8 or more."""
    return any(size >= 8 and size % 2 == 0 for size in module.kernel_size)


@contextmanager
def without_autocast(hooks: list[Hooks], device_type: str) -> Iterator[None]:
    """Run a held model as it is, and what is hooked into it under the autocast that was
    on outside."""
    on = torch.is_autocast_enabled(device_type)
    for each in hooks:
        each.autocast = torch.get_autocast_dtype(device_type) if on else None
    with torch.autocast(device_type, enabled=False):
        yield
