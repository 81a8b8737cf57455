"""Moonshine (Jeffries et al., arXiv 2410.15608): its encoder, which reads waveforms of
any length and knows positions by rotation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.backbones import registry
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.checkpoint import Checkpoint, with_prefixes
from petl_modules.core.family import Family
from petl_modules.core.masking import valid
from petl_modules.core.tokens import Tokens

FAMILY = Family(
    layers="layers",
    mhsa="self_attn",
    mhsa_norm="input_layernorm",
    ffn="mlp",
    ffn_norm="post_attention_layernorm",
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    o="self_attn.o_proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    last_norm="layer_norm",
)
PREPROCESSING = {"sampling_rate": 16000}


class MoonshineBackbone(Backbone):
    """Moonshine's encoder; the norm of its first convolution, whose statistics are over
    time, counts no padding.

    Arguments
    ---------
    model : transformers.MoonshineEncoder
    source : str
    preprocessing : dict
        sampling_rate (Hz).
    """

    def __init__(self, model: Any, source: str, preprocessing: dict[str, Any]) -> None:
        rate = preprocessing["sampling_rate"]
        super().__init__(model, FAMILY, source, rate, preprocessing)
        self.convolutions = [
            (conv.kernel_size[0], conv.stride[0])
            for conv in (model.conv1, model.conv2, model.conv3)
        ]
        self.receptive_field = 1
        for kernel, stride in reversed(self.convolutions):
            self.receptive_field = (self.receptive_field - 1) * stride + kernel
        for layer in model.layers:  # wider heads are for speed, and know no prefix
            layer.self_attn.head_dim_padding = 0

    def steps(self, samples: Tensor) -> Tensor:
        counts = samples.clamp(min=self.receptive_field)
        for kernel, stride in self.convolutions:
            counts = (counts - kernel) // stride + 1
        return counts

    def embed(self, wavs: Tensor, counts: Tensor) -> Tokens:
        # Clips that are shorter than one token's reach end in silence
        wavs = F.pad(wavs, (0, max(0, self.receptive_field - wavs.shape[1])))
        model = self.model
        wavs = wavs.unsqueeze(1).to(model.conv1.weight.dtype)
        kernel, stride = self.convolutions[0]
        frames = (counts.clamp(min=self.receptive_field) - kernel) // stride + 1
        hidden = norm_of_clips(torch.tanh(model.conv1(wavs)), frames, model.groupnorm)
        hidden = F.gelu(model.conv3(F.gelu(model.conv2(hidden)))).mT
        return Tokens(hidden, valid(self.steps(counts), hidden.shape[1]))

    def shared_by_layers(self, length: int) -> dict[str, Any]:
        like = self.model.layers[0].self_attn.q_proj.weight  # also of a narrow base
        places = torch.arange(length, device=like.device).unsqueeze(0)
        return {"position_embeddings": self.model.rotary_emb(like, places)}

    def whole_model(self) -> Any:
        """As of every backbone; the decoder is that of the source."""
        whole = Checkpoint(self.source).model("MoonshineModel")
        whole.encoder.load_state_dict(self.model.state_dict())
        return whole


def norm_of_clips(hidden: Tensor, counts: Tensor, norm: nn.GroupNorm) -> Tensor:
    """GroupNorm of one group over all channels and the valid frames of `(batch,
    channels, frames)`."""
    mask = valid(counts, hidden.shape[-1]).unsqueeze(1)
    wide = hidden.float()
    total = counts[:, None, None] * hidden.shape[1]
    mean = (wide * mask).sum((1, 2), keepdim=True) / total
    variance = ((wide - mean).square() * mask).sum((1, 2), keepdim=True) / total
    wide = (wide - mean) / torch.sqrt(variance + norm.eps)
    wide = wide * norm.weight.unsqueeze(-1) + norm.bias.unsqueeze(-1)
    return wide.to(hidden.dtype)


def load(checkpoint: Checkpoint) -> MoonshineBackbone:
    """A Moonshine's encoder."""
    checkpoint.no_spec_augment()
    model = with_prefixes(checkpoint.model("MoonshineModel").encoder)
    preprocessing = checkpoint.preprocessing(PREPROCESSING)
    return MoonshineBackbone(model, checkpoint.source, preprocessing)


registry.register("moonshine", load, {"moonshine": {}})
