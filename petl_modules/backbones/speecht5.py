"""SpeechT5 (Ao et al., arXiv 2110.07205): its encoder, which reads the waveform."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from petl_modules.backbones import registry
from petl_modules.backbones.attention import attention_with_prefix
from petl_modules.backbones.checkpoint import Checkpoint, with_prefixes
from petl_modules.backbones.waveform import POST_NORM, WaveformBackbone, positions

FAMILY = replace(POST_NORM, layers="wrapped_encoder.layers")
PREPROCESSING = {"sampling_rate": 16000, "do_normalize": False}


class SpeechT5Backbone(WaveformBackbone):
    """SpeechT5's encoder of speech: convolutions and layers as wav2vec 2.0's, whose
    attention knows relative positions.

    Arguments
    ---------
    model : transformers.SpeechT5EncoderWithSpeechPrenet
    source : str
    preprocessing : dict
        sampling_rate (Hz), do_normalize.
    """

    part_of = ("SpeechT5ForSpeechToText", "speecht5.encoder")

    def __init__(self, model: Any, source: str, preprocessing: dict[str, Any]) -> None:
        super().__init__(model, source, preprocessing, FAMILY)
        for points in self.points.layers:
            points.sites["mhsa"].module.__class__ = fused_relative_attention()

    @property
    def front(self) -> Any:
        """What SpeechT5 calls the prenet."""
        return self.model.prenet

    @property
    def feature_encoder(self) -> Any:
        """The convolutions that read the waveform."""
        return self.front.feature_encoder

    @property
    def layered(self) -> Any:
        """What SpeechT5 wraps in the prenet."""
        return self.model.wrapped_encoder

    def placed(self, hidden: Tensor, mask: Tensor) -> Tensor:
        front = self.front
        hidden = hidden + positions(front.pos_conv_embed, hidden, mask)
        # the number of a token that is padding, 1 where it is
        padding = (~mask).long()
        places = front.pos_sinusoidal_embed(padding).to(hidden.dtype)
        return self.layered.layer_norm(hidden + places)

    def shared_by_layers(self, length: int) -> dict[str, Any]:
        like = self.layered.embed_positions.pe_k.weight
        hidden = like.new_empty(1, length, 1)
        return {"position_bias": self.layered.embed_positions(hidden)}


@cache
def fused_relative_attention() -> type:
    """transformers' SpeechT5Attention through fused attention, with prefixes: a class
    for modules that are there, which keep their names and weights."""
    from transformers.models.speecht5.modeling_speecht5 import SpeechT5Attention

    class FusedRelativeAttention(SpeechT5Attention):
        def forward(
            self,
            hidden_states: Tensor,
            attention_mask: Tensor | None = None,
            position_bias: Any = None,
            prefix: tuple[Tensor, Tensor] | None = None,
            **unused: Any,
        ) -> tuple[Tensor, None]:
            query, key, value = (
                projection(hidden_states)
                .unflatten(-1, (self.num_heads, -1))
                .transpose(1, 2)
                for projection in (self.q_proj, self.k_proj, self.v_proj)
            )
            scaled = query * self.scaling
            bias = torch.einsum("bhqd,qkd->bhqk", scaled, position_bias.to(query.dtype))
            output, _ = attention_with_prefix(
                self,
                query,
                key,
                value,
                attention_mask,
                prefix=prefix,
                position_bias=bias,
                dropout=self.dropout if self.training else 0.0,
                scaling=self.scaling,
            )
            return self.out_proj(output.flatten(2)), None

    return FusedRelativeAttention


def load(checkpoint: Checkpoint) -> SpeechT5Backbone:
    """The encoder of a SpeechT5 that recognises speech."""
    checkpoint.no_spec_augment()
    model = with_prefixes(checkpoint.part(SpeechT5Backbone))
    preprocessing = checkpoint.preprocessing(PREPROCESSING)
    return SpeechT5Backbone(model, checkpoint.source, preprocessing)


registry.register("speecht5", load, {"speecht5": {}})
