"""`torch.nn.MultiheadAttention` through modules that hooks can reach."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.errors import UserError


class InProjection(nn.Module):
    """Queries, keys and values in one product: a part of a `ReachableAttention`, whose
    parameters it shares.

    Arguments
    ---------
    weight : torch.nn.Parameter
        `(3 hidden, hidden)`.
    bias : torch.nn.Parameter or None
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """`(..., hidden)` to `(..., 3 hidden)`."""
        return F.linear(x, self.weight, self.bias)


class ReachableAttention(nn.MultiheadAttention):
    """PyTorch's attention with its projections called as modules, so that what is
    hooked onto them acts, and with learned prefixes.

    PyTorch's own hands the weights to a function, past any hook. Names, parameters,
    arguments and results stay as they are; `reachable` makes one of a module that is
    there.

    Attributes
    ----------
    in_proj : InProjection
        Outside of the module's parts, so that it adds no names to the state dict.
    """

    in_proj: InProjection

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        prefix: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As `torch.nn.MultiheadAttention`; and `prefix`, keys and values `(length,
        hidden)` that every token sees."""
        if query.dim() != 3:
            raise UserError(
                "An adapted torch.nn.MultiheadAttention takes batches: give it three "
                "dimensions."
            )
        if is_causal and attn_mask is None:
            raise UserError("is_causal needs attn_mask, as in PyTorch.")
        projection = self.in_proj
        projection.weight, projection.bias = self.in_proj_weight, self.in_proj_bias
        made: dict[int, tuple[Tensor, ...]] = {}
        for given in (query, key, value):
            if id(given) not in made:
                made[id(given)] = projection(given).chunk(3, -1)
        parts = [made[id(t)][i] for i, t in enumerate((query, key, value))]
        if not self.batch_first:
            parts = [part.transpose(0, 1) for part in parts]
        q, k, v = (self._heads(part) for part in parts)
        bias = self._bias(attn_mask, key_padding_mask, q)
        learned = 0
        if prefix is not None:
            learned = prefix[0].shape[0]
            keys, values = (
                self._heads(part.to(k.dtype).expand(len(k), -1, -1)) for part in prefix
            )
            k, v = torch.cat([keys, k], 2), torch.cat([values, v], 2)
            bias = None if bias is None else F.pad(bias, (learned, 0))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.mT * self.head_dim**-0.5
            weights = (scores if bias is None else scores + bias).softmax(-1)
            output = F.dropout(weights, dropout) @ v
            weights = weights[..., learned:]
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            output = F.scaled_dot_product_attention(q, k, v, bias, dropout)
        output = self.out_proj(output.transpose(1, 2).flatten(2))
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _heads(self, part: Tensor) -> Tensor:
        return part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _bias(
        self, attn_mask: Tensor | None, padding: Tensor | None, q: Tensor
    ) -> Tensor | None:
        """What is added to the scores, broadcast to `(batch, heads, time, time)`."""
        bias = None
        if attn_mask is not None:
            bias = additive(attn_mask, q.dtype)
            if bias.dim() == 3:
                bias = bias.unflatten(0, (-1, self.num_heads))
        if padding is not None:
            hidden = additive(padding, q.dtype)[:, None, None]
            bias = hidden if bias is None else bias + hidden
        return bias


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask in PyTorch's sense, True for what is not seen, as what is added."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf)


def reachable(attention: nn.MultiheadAttention) -> None:
    """Make a `ReachableAttention` of a module that is there.

    Raises
    ------
    UserError
        If it has keys or values of another size, or learned ones of its own.
    """
    if (
        attention.in_proj_weight is None
        or attention.bias_k is not None
        or attention.add_zero_attn
    ):
        raise UserError(
            "A torch.nn.MultiheadAttention with kdim, vdim, add_bias_kv or "
            "add_zero_attn cannot be adapted."
        )
    attention.__class__ = ReachableAttention
    projection = InProjection(attention.in_proj_weight, attention.in_proj_bias)
    attention.__dict__["in_proj"] = projection
    # PyTorch's fused encoder layer, which calls no module, asks for this
    attention._qkv_same_embed_dim = False
