"""Adapters: small modules that read a site's input or output and add to it.

All map `(batch, time, hidden)` to the same shape, start at zero (the last
projection is zero, so the adapted model starts as the base model), and take a
mask of the valid frames, so that padding never leaks through a convolution, a
mean or a batch statistic.
"""

from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.core.access_points import LayerPoints
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.masking import masked_mean
from petl_modules.core.precision import convolved
from petl_modules.core.recompute import second_time
from petl_modules.errors import UserError, one_of
from petl_modules.kinds import Layers, Parts, Probability, Reduction, Size
from petl_modules.methods.base import Method, bottleneck_width

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


class Bottleneck(nn.Module):
    """`up(act(down(x)))` (Houlsby et al. 2019; for AST: arXiv 2312.03694).

    Arguments
    ---------
    hidden_size : int
        Size d of the tokens.
    rank : int or None
        Width r of the bottleneck, in the place of reduction_rate.
    reduction_rate : float
        The size of the tokens over the width r of the bottleneck, where no rank is
        given.
    activation : str
        The function between the two projections.
    dropout : float
        Dropout of the narrow features.

    Example
    -------
    >>> Bottleneck(hidden_size=768, rank=12)(torch.randn(2, 10, 768)).abs().sum()
    tensor(0., grad_fn=<SumBackward0>)
    """

    def __init__(
        self,
        hidden_size: int,
        rank: Size | None = None,
        reduction_rate: Reduction = 64,
        activation: Literal["gelu", "relu", "silu"] = "gelu",
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.rank = width = bottleneck_width(hidden_size, rank, reduction_rate)
        one_of("activation", activation, ACTIVATIONS)
        self.act = ACTIVATIONS[activation]
        self.down = nn.Linear(hidden_size, width)
        self.dropout = nn.Dropout(dropout)
        self.up = zeroed(nn.Linear(width, hidden_size))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, time, hidden)` to the same; each token by itself."""
        return self.up(self.dropout(self.act(self.down(x))))


class Conformer(nn.Module):
    """The convolution module of Conformer, narrow (arXiv 2312.03694).

    LayerNorm, pointwise convolution d to 2r, GLU, depthwise convolution,
    BatchNorm over the valid frames, SiLU, pointwise convolution r to d.

    Arguments
    ---------
    hidden_size : int
        Size d of the tokens.
    rank : int or None
        Width r of the bottleneck, in the place of reduction_rate.
    reduction_rate : float
        The size of the tokens over the width r of the bottleneck, where no rank is
        given; of 768 at 96 that is r = 8.
    kernel_size : int
        Width of the convolution over time, in tokens.
    dropout : float
        Dropout of the narrow features.
    """

    sees_later = True

    def __init__(
        self,
        hidden_size: int,
        rank: Size | None = None,
        reduction_rate: Reduction = 96,
        kernel_size: Size = 31,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.rank = width = bottleneck_width(hidden_size, rank, reduction_rate)
        self.norm = nn.LayerNorm(hidden_size)
        self.down = nn.Linear(hidden_size, 2 * width)
        self.conv = SameConv1d(width, width, kernel_size, groups=width)
        self.batch_norm = MaskedBatchNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.up = zeroed(nn.Linear(width, hidden_size))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, time, hidden)` to the same; `mask` (batch, time), True if valid."""
        x = F.glu(self.down(self.norm(x)))
        x = self.batch_norm(self.conv(x, mask), mask)
        return self.up(self.dropout(F.silu(x)))


class Convpass(nn.Module):
    """Down, QuickGELU, convolution, QuickGELU, dropout, up (Jie and Deng, arXiv
    2207.07039; for audio: arXiv 2402.00828).

    Arguments
    ---------
    hidden_size : int
        Size d of the tokens.
    rank : int or None
        Width r of the bottleneck, in the place of reduction_rate.
    reduction_rate : float
        The size of the tokens over the width r of the bottleneck, where no rank is
        given.
    kernel_size : int
        Width of the convolution over time, in tokens.
    dropout : float
        Dropout before the last projection.
    """

    sees_later = True

    def __init__(
        self,
        hidden_size: int,
        rank: Size | None = None,
        reduction_rate: Reduction = 64,
        kernel_size: Size = 3,
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        self.rank = width = bottleneck_width(hidden_size, rank, reduction_rate)
        self.down = nn.Linear(hidden_size, width)
        self.conv = SameConv1d(width, width, kernel_size)
        self.dropout = nn.Dropout(dropout)
        self.up = zeroed(nn.Linear(width, hidden_size))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, time, hidden)` to the same; `mask` (batch, time), True if valid."""
        x = self.conv(quick_gelu(self.down(x)), mask)
        return self.up(self.dropout(quick_gelu(x)))


class ConvAdapter(nn.Module):
    """SURE's ConvAdapter (arXiv 2303.03267): three thin convolutions over time and
    a squeeze-and-excite gate.

    Arguments
    ---------
    hidden_size : int
        Size d of the tokens, a multiple of 16.
    """

    sees_later = True

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        if hidden_size % 16:
            raise UserError(
                f"conv_adapter needs a hidden size that 16 divides, not {hidden_size}."
            )
        half = hidden_size // 2
        self.norm = nn.LayerNorm(hidden_size)
        self.narrow = SameConv1d(hidden_size, half, 3, groups=half, bias=False)
        self.depthwise = SameConv1d(half, half, 5, groups=half, bias=False)
        self.widen = SameConv1d(half, hidden_size, 3, groups=half, bias=False)
        self.squeeze = nn.Linear(hidden_size, hidden_size // 16, bias=False)
        self.excite = nn.Linear(hidden_size // 16, hidden_size, bias=False)
        nn.init.zeros_(self.widen.weight)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, time, hidden)` to the same; `mask` (batch, time), True if valid."""
        x = F.relu(self.narrow(self.norm(x), mask))
        x = self.widen(self.depthwise(x, mask), mask)
        gate = self.excite(F.relu(self.squeeze(masked_mean(x, mask))))
        return x * torch.sigmoid(gate).unsqueeze(1)


class SiteAdapters(Method):
    """One module at each site: the method behind every adapter and mixture.

    With `z` the site's input, `F` the frozen block, `A` the module:
    parallel `F(z) + A(z)`; sequential, after `F(z) + A(F(z))`, or `A(F(z))`
    without `residual`; sequential, before `F(z + A(z))`. At the site block (SURE,
    arXiv 2303.03267) the module reads the output `h` of the feed-forward block, its
    residual included: `h + A(h)`, whatever the placement; in post-norm layers that is
    what the last norm reads.

    Arguments
    ---------
    adapter : type
        The module's class, built from `hidden_size` and `knobs`.
    site : str
        Which blocks get an adapter: self-attention, feed-forward (one of them is the
        Pfeiffer placement), both (Houlsby's), or the whole layer's output (SURE's); in
        a Conformer also its first half step of feed-forward (ffn1) or its convolution.
    placement : str
        Whether an adapter stands beside its block or in a row with it.
    position : str
        Whether a sequential adapter stands after its block or before it.
    residual : bool
        Whether a sequential adapter after its block adds to that block's output.
        Without it the adapted model does not start as the base model.
    train_norm : bool
        Whether the LayerNorm of the site trains too.
    layers : list of int or None
        The layers that the method touches, such as [0, 1] or [-1]; null for all.
    parts : list of str or None
        The parts that it touches, encoder or decoder; null for all that there are.
    **knobs
        For the module.
    """

    def __init__(
        self,
        adapter: type[nn.Module],
        site: Literal["mhsa", "ffn", "both", "block", "ffn1", "conv"] = "mhsa",
        placement: Literal["parallel", "sequential"] = "parallel",
        position: Literal["after", "before"] = "after",
        residual: bool = True,
        train_norm: bool = True,
        layers: Layers | None = None,
        parts: Parts | None = None,
        **knobs: Any,
    ) -> None:
        super().__init__(layers, parts)
        one_of("site", site, ("mhsa", "ffn", "both", "block", "ffn1", "conv"))
        one_of("placement", placement, ("parallel", "sequential"))
        one_of("position", position, ("after", "before"))
        if site == "block" and (position == "before" or not residual):
            raise UserError(
                "site=block adds to the block's output: position=before and "
                "residual=False have no meaning there."
            )
        refuse = getattr(adapter, "refuse", None)
        if refuse is not None:
            refuse(**knobs)
        if placement == "parallel" and position == "before":
            raise UserError(
                "position=before has no meaning with placement=parallel: set "
                "placement=sequential too."
            )
        if not residual and (placement, position) != ("sequential", "after"):
            raise UserError(
                "residual=False is for placement=sequential with position=after."
            )
        self.adapter, self.adapter_knobs = adapter, knobs
        self.on_block = site == "block"
        self.sites = {"both": ("mhsa", "ffn"), "block": ("ffn",)}.get(site, (site,))
        self.placement, self.position, self.residual = placement, position, residual
        self.with_norm = train_norm
        self.additive = residual
        self.form = ("block",) if self.on_block else (placement, position)

    def attach(self, model: AdaptedModel) -> None:
        shared: dict[int, nn.Module] = {}  # what adapters of one size have in common
        for layer in self.chosen_layers(model):
            for site in self.sites:
                if site not in layer.sites:
                    raise UserError(
                        f"site={site}: the layers of {model.source} have no such "
                        f"block, but {', '.join(layer.sites)}."
                    )
                size = layer.hidden_size
                adapter: Any = self.adapter(size, **self.adapter_knobs)
                if hasattr(adapter, "share"):
                    if size not in shared:
                        shared[size] = model.add(self, layer, "shared", adapter.shared)
                    adapter.share(shared[size])
                self.hook(layer, site, model.add(self, layer, site, adapter))
                if self.with_norm:
                    model.train_norm(layer, site)

    def hook(self, layer: LayerPoints, site: str, module: Any) -> None:
        place = layer.sites[site]
        if self.on_block:
            layer.on_block_output(lambda h, mask: h + module(h, mask))
        elif self.placement == "parallel":
            place.add(lambda z, out, mask: module(z, mask))
        elif self.position == "before":
            place.before(lambda z, mask: z + module(z, mask))
        elif self.residual:
            place.add(lambda z, out, mask: module(out, mask))
        else:
            place.around(lambda z, out, mask: module(out, mask))


class SameConv1d(nn.Conv1d):
    """Convolution over the time of `(batch, time, channels)` that keeps the length
    (even kernels too) and reads zeros where `mask` is False."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        x = input if mask is None else input * mask.unsqueeze(-1)
        reach = self.kernel_size[0] - 1
        x = F.pad(x.transpose(1, 2), (reach // 2, reach - reach // 2))
        return super().forward(x).transpose(1, 2)

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        return convolved(self, input, weight, bias)


class MaskedBatchNorm(nn.Module):
    """BatchNorm over the valid frames of `(batch, time, channels)`.

    It is no subclass of PyTorch's, which distributed training would swap for one
    that knows no mask. Processes that train together normalise by the frames of all
    of them, so that their number does not change what is learnt.
    """

    momentum, eps = 0.1, 1e-5
    takes_part = True  # in statistics over processes
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, time, channels)` to the same; `mask` (batch, time), True if valid.

        Statistics are weighted sums: to gather the valid frames would wait for the
        device to count them.
        """
        wide, mean, var, share = x.float(), self.running_mean, self.running_var, None
        weights = wide.new_ones(x.shape[:2]) if mask is None else mask.float()
        weights = weights.unsqueeze(-1)
        if self.training:
            mean, var, share = self._statistics(wide.detach(), weights)
        rate = (var + self.eps).rsqrt()
        given = self.weight, self.bias, mean, rate, weights, share
        return Normalised.apply(wide, *given).to(x.dtype)

    @torch.no_grad()
    def _statistics(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and each frame's share in them."""
        counted = weights if self.takes_part else torch.zeros_like(weights)
        sums = torch.cat([(x * counted).sum((0, 1)), counted.sum((0, 1))])
        sums, count = over_processes(sums).tensor_split([-1])
        mean = sums / count
        squares = ((x - mean).square() * counted).sum((0, 1))
        var = over_processes(squares) / count
        if not second_time():
            self._follow(mean, var, count)
        return mean, var, counted / count

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Let the running statistics follow a batch's."""
        unbiased = var * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)


class Normalised(torch.autograd.Function):
    """`((x - mean) * rate * weight + bias) * weights`, where mean and rate may come of
    x: each frame has a share in them. With the gradient written down, a GPU is asked
    for a third of the kernels."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        rate: Tensor,
        weights: Tensor,
        share: Tensor | None,
    ) -> Tensor:
        normal = (x - mean) * rate
        ctx.save_for_backward(normal, weight, rate, weights, share)
        return torch.addcmul(bias, normal, weight) * weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normal, weight, rate, weights, share = ctx.saved_tensors
        grad = grad * weights
        of_bias, of_weight = grad.sum((0, 1)), (grad * normal).sum((0, 1))
        if share is not None:
            sums = over_processes(torch.cat([of_bias, of_weight])).chunk(2)
            grad = grad - share * torch.addcmul(sums[0], normal, sums[1])
        return grad * (rate * weight), of_weight, of_bias, None, None, None, None


def over_processes(sums: Tensor) -> Tensor:
    """Sums over all processes that train together."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(sums)
    return sums


def quick_gelu(x: Tensor) -> Tensor:
    """`x * sigmoid(1.702 x)`."""
    return x * torch.sigmoid(1.702 * x)


def zeroed(linear: nn.Linear) -> nn.Linear:
    """The layer with weight and bias set to zero."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
