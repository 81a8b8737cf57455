"""Fused attention that knows learned prefixes, for every family."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_with_prefix"


def attention_with_prefix(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`scaled_dot_product_attention` over a prefix, if there is one, and the tokens.

    Arguments
    ---------
    query, key, value : torch.Tensor
        `(batch, heads, time, size)`.
    attention_mask : torch.Tensor or None
        Boolean or additive, `(batch, 1 or heads, 1 or time, time)`.
    prefix : tuple of torch.Tensor, optional
        Keys and values `(length, heads * size)`, seen by every token.
    position_bias : torch.Tensor, optional
        What relative positions add to the scores, `(batch, heads, time, time)`; a
        prefix has no position.
    """
    prefix = kwargs.pop("prefix", None)
    kwargs.pop("is_causal", None)  # the mask says it
    if prefix is not None:
        keys, values = (split_heads(part, key) for part in prefix)
        key, value = torch.cat([keys, key], 2), torch.cat([values, value], 2)
        if attention_mask is not None:
            seen = 1 if attention_mask.dtype == torch.bool else 0
            attention_mask = F.pad(attention_mask, (keys.shape[2], 0), value=seen)
        if kwargs.get("position_bias") is not None:
            bias = kwargs["position_bias"]
            kwargs["position_bias"] = F.pad(bias, (keys.shape[2], 0))
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, is_causal=False, **kwargs
    )


def decoder_mask(**kwargs: Any) -> Tensor | None:
    """The causal mask of a decoder, never left to `is_causal`: that knows nothing of a
    prefix, which every token sees."""
    return sdpa_mask(**{**kwargs, "allow_is_causal_skip": False})


AttentionInterface.register(NAME, attention_with_prefix)
AttentionMaskInterface.register(NAME, decoder_mask)


def wavlm_attention(
    module: Any,
    hidden: Tensor,
    attention_mask: Tensor | None,
    position_bias: Tensor,
    prefix: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """WavLM's gated relative attention through its projection modules.

    transformers' own code hands the projections' weights to
    `F.multi_head_attention_forward`, past any hook on the projections, and always
    computes the attention weights; this calls the projections and fused attention.

    Arguments
    ---------
    module : WavLMAttention
    hidden : torch.Tensor
        `(batch, time, hidden)`.
    attention_mask : torch.Tensor or None
        Boolean, `(batch, 1, 1, time)`.
    position_bias : torch.Tensor
        Of the first layer, `(heads, time, time)`.
    prefix : tuple of torch.Tensor, optional
        As in `attention_with_prefix`.

    Returns
    -------
    torch.Tensor
        `(batch, time, hidden)`.
    """
    heads = hidden.unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
    gates = module.gru_rel_pos_linear(heads).unflatten(-1, (2, 4)).sum(-1)
    a, b = gates.sigmoid().chunk(2, dim=-1)
    bias = (a * (b * module.gru_rel_pos_const - 1.0) + 2.0) * position_bias
    if attention_mask is not None:
        bias = bias.masked_fill(~attention_mask, torch.finfo(bias.dtype).min)
    query, key, value = (
        projection(hidden).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    output, _ = attention_with_prefix(
        module,
        query,
        key,
        value,
        bias.to(query.dtype),
        prefix=prefix,
        dropout=module.dropout if module.training else 0.0,
        scaling=module.scaling,
    )
    # as flatten(2), of which torch.export does not know the strides
    return module.out_proj(torch.cat(output.unbind(2), -1))


def split_heads(part: Tensor, like: Tensor) -> Tensor:
    """`(length, heads * size)` to `(batch, heads, length, size)` of `like`."""
    batch, heads, _, size = like.shape
    part = part.to(like.dtype).view(-1, heads, size).transpose(0, 1)
    return part.expand(batch, -1, -1, -1)
