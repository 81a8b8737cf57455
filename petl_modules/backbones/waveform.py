"""Encoders that read the waveform: wav2vec 2.0 and its multilingual ones (XLSR-53,
XLS-R, MMS), HuBERT, WavLM, UniSpeech and UniSpeech-SAT, data2vec."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.backbones import registry
from petl_modules.backbones.attention import wavlm_attention
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.checkpoint import Checkpoint, with_prefixes
from petl_modules.core.family import Family
from petl_modules.core.masking import valid
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError

POST_NORM = Family(
    layers="encoder.layers",
    mhsa="attention",
    mhsa_norm="layer_norm",
    ffn="feed_forward",
    ffn_norm="final_layer_norm",
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    o="attention.out_proj",
    fc1="feed_forward.intermediate_dense",
    fc2="feed_forward.output_dense",
    block_norm="final_layer_norm",
)
# "stable layer norm", as the large models have
PRE_NORM = replace(POST_NORM, block_norm=None, last_norm="encoder.layer_norm")
PREPROCESSING = {"sampling_rate": 16000, "do_normalize": True}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}


class WaveformBackbone(Backbone):
    """wav2vec 2.0 (arXiv 2006.11477), XLSR-53 (2006.13979), XLS-R (2111.09296), MMS
    (2305.13516), HuBERT (2106.07447), UniSpeech (2101.07597), UniSpeech-SAT
    (2110.05752), data2vec (2202.03555).

    Neither the normalisation of the waveform nor the group normalisation of the
    first convolution counts padding.

    Arguments
    ---------
    model : transformers.Wav2Vec2Model or HubertModel
    source : str
    preprocessing : dict
        sampling_rate (Hz), do_normalize.
    family : Family or None
        None for that of Transformer layers, before or after whose blocks norms stand.
    """

    def __init__(
        self,
        model: Any,
        source: str,
        preprocessing: dict[str, Any],
        family: Family | None = None,
    ) -> None:
        refuse_convolutions_after(model.config, source)
        self.stable = getattr(model.config, "do_stable_layer_norm", False)
        super().__init__(
            model,
            family or (PRE_NORM if self.stable else POST_NORM),
            source,
            preprocessing["sampling_rate"],
            preprocessing,
        )

    @property
    def feature_encoder(self) -> Any:
        """The convolutions that read the waveform."""
        return self.front.feature_extractor

    def steps(self, samples: Tensor) -> Tensor:
        counts = samples.clamp(min=self.receptive_field())
        config = self.model.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            counts = (counts - kernel) // stride + 1
        return counts

    def embed(self, wavs: Tensor, counts: Tensor) -> Tokens:
        # Clips that are shorter than one token's reach end in silence
        receptive = self.receptive_field()
        if wavs.shape[1] < receptive:
            wavs = F.pad(wavs, (0, receptive - wavs.shape[1]))
        if self.preprocessing["do_normalize"]:
            wavs = standardised(wavs, counts)
        hidden, counts = self.convolve(wavs, counts.clamp(min=receptive))
        hidden = self.projected(hidden.transpose(1, 2))
        mask = valid(counts, hidden.shape[1])
        hidden = hidden.masked_fill(~mask.unsqueeze(-1), 0.0)
        hidden = self.placed(hidden, mask)
        return Tokens(self.layered.dropout(hidden), mask)

    @property
    def front(self) -> Any:
        """The part of the model that makes tokens of waveforms."""
        return self.model

    @property
    def layered(self) -> Any:
        """The part of the model that has the layers."""
        return self.model.encoder

    def projected(self, features: Tensor) -> Tensor:
        """What the convolutions give, `(batch, time, channels)`, as wide as tokens."""
        projected = self.front.feature_projection(features)
        return projected if isinstance(projected, torch.Tensor) else projected[0]

    def placed(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The tokens `(batch, time, hidden)`, told where in time they are."""
        encoder = self.layered
        hidden = hidden + positions(encoder.pos_conv_embed, hidden, mask)
        return hidden if self.stable else encoder.layer_norm(hidden)

    def idle_parameters(self) -> list[nn.Parameter]:
        return mask_token(self.front)

    def receptive_field(self, frames: int = 1) -> int:
        """Samples that so many frames of the convolutions read."""
        samples = frames
        config = self.model.config
        for kernel, stride in zip(
            config.conv_kernel[::-1], config.conv_stride[::-1], strict=True
        ):
            samples = (samples - 1) * stride + kernel
        return samples

    def convolve(self, wavs: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms to features `(batch, channels, frames)` and valid frames."""
        layers = self.feature_encoder.conv_layers
        hidden = wavs.unsqueeze(1).to(layers[0].conv.weight.dtype)
        for layer in layers:
            kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
            counts = (counts - kernel) // stride + 1
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, torch.nn.GroupNorm):
                hidden = layer.conv(hidden)
                hidden = layer.activation(masked_group_norm(hidden, counts, norm))
            else:
                hidden = layer(hidden)
        return hidden, counts


class WavLMBackbone(WaveformBackbone):
    """WavLM (arXiv 2110.13900): its relative attention runs through the projection
    modules, so that what is hooked onto them acts, and through fused attention."""

    def __init__(self, model: Any, source: str, preprocessing: dict[str, Any]) -> None:
        super().__init__(model, source, preprocessing)
        for points in self.points.layers:
            points.sites["mhsa"].module.__class__ = fused_relative_attention()

    def shared_by_layers(self, length: int) -> dict[str, Any]:
        layer: Any = self.points.layers[0].module
        return {"position_bias": relative_bias(layer.attention, length)}


def relative_bias(attention: Any, length: int) -> Tensor:
    """What relative positions add to scores, `(heads, length, length)`, as WavLM's
    `compute_bias` gives it, whose embedding's backward pass lets a GPU's host wait."""
    table = attention.rel_attn_embed.weight
    places = torch.arange(length, device=table.device)
    buckets = attention._relative_positions_bucket(places - places.unsqueeze(1))
    values = table.index_select(0, buckets.flatten())
    return values.view(length, length, -1).permute(2, 0, 1)


@cache
def fused_relative_attention() -> type:
    """transformers' WavLMAttention with `wavlm_attention` for its forward function: a
    class for modules that are there, which keep their names and weights."""
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    class FusedRelativeAttention(WavLMAttention):
        def forward(
            self,
            hidden_states: Tensor,
            attention_mask: Tensor | None = None,
            position_bias: Any = None,
            prefix: tuple[Tensor, Tensor] | None = None,
            **unused: Any,
        ) -> tuple[Tensor, None, Tensor | None]:
            output = wavlm_attention(
                self, hidden_states, attention_mask, position_bias, prefix
            )
            return output, None, position_bias

    return FusedRelativeAttention


def mask_token(front: Any) -> list[nn.Parameter]:
    """What stands for masked frames, which serves the pretext task alone."""
    token = getattr(front, "masked_spec_embed", None)
    return [] if token is None else [token]


def refuse_convolutions_after(config: Any, source: str) -> None:
    """Raise a UserError for a checkpoint with more than its encoder's layers."""
    if getattr(config, "add_adapter", False):
        raise UserError(
            f"{source} has convolutions after its encoder (add_adapter), which no "
            "recipe uses: take the checkpoint without them."
        )


def positions(embedding: Any, hidden: Tensor, mask: Tensor) -> Tensor:
    """The convolutional position embedding, which reads zeros after a clip.

    Where it normalises its input first, as HuBERT's with `conv_pos_batch_norm` does,
    that makes something else of padding, and of a batch's statistics: padding is zero
    again behind it, and the statistics are those of pretraining, in training too.
    """
    several = getattr(embedding, "layers", None)
    if several is not None:  # data2vec's, each of which must read zeros there
        hidden = hidden.mT
        for layer in several:
            hidden = layer(hidden.masked_fill(~mask.unsqueeze(1), 0.0))
        return hidden.mT
    norm = getattr(embedding, "batch_norm", None)
    if norm is None:
        return embedding(hidden)
    hidden = F.batch_norm(
        hidden.transpose(1, 2),
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        eps=norm.eps,
    )
    hidden = hidden.masked_fill(~mask.unsqueeze(1), 0.0)
    return embedding.activation(embedding.padding(embedding.conv(hidden))).mT


def standardised(wavs: Tensor, counts: Tensor) -> Tensor:
    """Zero mean and unit variance over the valid samples, zeros after them."""
    mask = valid(counts, wavs.shape[1])
    total = mask.sum(1, keepdim=True)
    mean = (wavs * mask).sum(1, keepdim=True) / total
    variance = ((wavs - mean).square() * mask).sum(1, keepdim=True) / total
    return (wavs - mean) / torch.sqrt(variance + 1e-7) * mask


def masked_group_norm(hidden: Tensor, counts: Tensor, norm: nn.GroupNorm) -> Tensor:
    """GroupNorm with one channel a group over the valid frames of `(batch, channels,
    frames)`."""
    mask = valid(counts, hidden.shape[-1]).unsqueeze(1)
    total = counts[:, None, None]
    wide = hidden.float()
    mean = (wide * mask).sum(-1, keepdim=True) / total
    variance = ((wide - mean).square() * mask).sum(-1, keepdim=True) / total
    wide = (wide - mean) / torch.sqrt(variance + norm.eps)
    wide = wide * norm.weight.unsqueeze(-1) + norm.bias.unsqueeze(-1)
    return wide.to(hidden.dtype)


def load(checkpoint: Checkpoint) -> WaveformBackbone:
    """A model of one of `KINDS`."""
    kind, backbone = KINDS[checkpoint.model_type]
    checkpoint.no_spec_augment()
    model = with_prefixes(checkpoint.model(kind))
    return backbone(model, checkpoint.source, checkpoint.preprocessing(PREPROCESSING))


KINDS = {
    "wav2vec2": ("Wav2Vec2Model", WaveformBackbone),
    "hubert": ("HubertModel", WaveformBackbone),
    "wavlm": ("WavLMModel", WavLMBackbone),
    "unispeech": ("UniSpeechModel", WaveformBackbone),
    "unispeech-sat": ("UniSpeechSatModel", WaveformBackbone),
    "data2vec-audio": ("Data2VecAudioModel", WaveformBackbone),
}
BILLION = {
    **LARGE,
    "hidden_size": 1280,
    "num_hidden_layers": 48,
    "intermediate_size": 5120,
}
ARCHITECTURES = {
    "wav2vec2": {
        "facebook/wav2vec2-base-960h": {},
        "jonatasgrosman/wav2vec2-large-xlsr-53-english": LARGE,
        "facebook/wav2vec2-xls-r-300m": LARGE,
        "facebook/mms-300m": LARGE,
        "facebook/wav2vec2-xls-r-1b": BILLION,
        "facebook/mms-1b": BILLION,
    }
}
for model_type in KINDS:
    registry.register(
        model_type, load, {model_type: {}, **ARCHITECTURES.get(model_type, {})}
    )
