"""SpeechBrain's FastSpeech 2, with projections of its attention that are modules."""

from typing import Any

import torch
from speechbrain.lobes.models.FastSpeech2 import FastSpeech2WithAlignment
from torch import Tensor, nn

from petl_modules.backbones.attention import attention_with_prefix
from petl_modules.tts.config import FastSpeech2Config
from petl_modules.tts.text import SYMBOLS


def speechbrain_model(config: FastSpeech2Config) -> FastSpeech2WithAlignment:
    """SpeechBrain's FastSpeech 2, with what learns its alignment if that is learned."""
    size, shared = config.hidden_size, {}
    for stack in ("enc", "dec"):
        shared |= {
            f"{stack}_num_head": config.heads,
            f"{stack}_d_model": size,
            f"{stack}_ffn_dim": config.ffn_size,
            f"{stack}_k_dim": size,
            f"{stack}_v_dim": size,
            f"{stack}_dropout": config.dropout,
        }
    model = FastSpeech2WithAlignment(
        **shared,
        enc_num_layers=config.encoder_layers,
        dec_num_layers=config.decoder_layers,
        in_query_channels=config.n_mels,
        in_key_channels=size,
        attn_channels=config.n_mels,
        temperature=0.0005,
        normalize_before=True,  # trains without a long warm-up
        ffn_type="1dcnn",
        ffn_cnn_kernel_size_list=list(config.kernel_sizes),
        n_char=len(SYMBOLS[config.text]),
        n_mels=config.n_mels,
        postnet_embedding_dim=config.postnet_size,
        postnet_kernel_size=5,
        postnet_n_convolutions=5,
        postnet_dropout=config.dropout,
        padding_idx=0,
        dur_pred_kernel_size=3,
        pitch_pred_kernel_size=3,
        energy_pred_kernel_size=3,
        variance_predictor_dropout=config.dropout,
    )
    if config.alignment == "forced":
        del model.aligner
    return model


class SelfAttention(nn.Module):
    """SpeechBrain's self-attention with modules for its four projections; the weights
    keep SpeechBrain's names and packing in the state dict.

    Arguments
    ---------
    attention : torch.nn.MultiheadAttention
        Whose weights are taken.
    """

    packed = ("q_proj", "k_proj", "v_proj")

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        size = attention.embed_dim
        self.num_heads, self.dropout = attention.num_heads, attention.dropout
        self.scaling = attention.head_dim**-0.5
        for name in (*self.packed, "out_proj"):
            self.add_module(name, nn.Linear(size, size))
        self.register_state_dict_post_hook(pack)
        self.register_load_state_dict_pre_hook(unpack)
        weights = {f"att.{n}": p for n, p in attention.state_dict().items()}
        self.load_state_dict(weights)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        pos_embs: Tensor | None = None,
        prefix: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, None]:
        """Called as SpeechBrain's layers do.

        Arguments
        ---------
        query : torch.Tensor
            `(batch, time, hidden)`; keys and values are made of it too.
        key_padding_mask : torch.Tensor or None
            `(batch, time)`, True for padding.
        prefix : tuple of torch.Tensor or None
            As in `attention_with_prefix`.

        Returns
        -------
        torch.Tensor, None
            `(batch, time, hidden)`, and no attention weights.
        """
        del key, value, attn_mask, pos_embs  # the query; and what is never given
        parts = (
            self.get_submodule(name)(query)
            .unflatten(-1, (self.num_heads, -1))
            .transpose(1, 2)
            for name in self.packed
        )
        seen = None if key_padding_mask is None else ~key_padding_mask[:, None, None]
        output, _ = attention_with_prefix(
            self,
            *parts,
            seen,
            prefix=prefix,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
        )
        return self.out_proj(output.flatten(2)), None


# Helpers


def pack(
    module: SelfAttention, state: dict[str, Tensor], prefix: str, metadata: dict
) -> None:
    """Write the projections' weights as torch.nn.MultiheadAttention names them."""
    del metadata
    for kind in ("weight", "bias"):
        parts = [state.pop(f"{prefix}{name}.{kind}") for name in module.packed]
        state[f"{prefix}att.in_proj_{kind}"] = torch.cat(parts)
        out = state.pop(f"{prefix}out_proj.{kind}")
        state[f"{prefix}att.out_proj.{kind}"] = out


def unpack(
    module: SelfAttention, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Read them again."""
    for kind in ("weight", "bias"):
        key = f"{prefix}att.in_proj_{kind}"
        if key in state:
            parts = state.pop(key).chunk(3)
            for name, part in zip(module.packed, parts, strict=True):
                state[f"{prefix}{name}.{kind}"] = part
            out = state.pop(f"{prefix}att.out_proj.{kind}")
            state[f"{prefix}out_proj.{kind}"] = out
