"""Encoders that read the waveform: wav2vec 2.0, HuBERT, WavLM, XLSR-53."""

import torch
import torch.nn.functional as F

from petl_modules.backbones.attention import wavlm_attention
from petl_modules.backbones.base import Backbone
from petl_modules.core.access_points import WAVEFORM_POST_NORM, WAVEFORM_PRE_NORM
from petl_modules.core.masking import valid
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError


class WaveformBackbone(Backbone):
    """wav2vec 2.0 (arXiv 2006.11477), HuBERT (2106.07447), XLSR-53 (2006.13979).

    Neither the normalisation of the waveform nor the group normalisation of the
    first convolution counts padding.

    Arguments
    ---------
    model : transformers.Wav2Vec2Model or HubertModel
    source : str
    preprocessing : dict
        sampling_rate (Hz), do_normalize.
    """

    def __init__(self, model, source, preprocessing):
        config = model.config
        if getattr(config, "add_adapter", False):
            raise UserError(
                f"{source} has convolutions after its encoder (add_adapter), which no "
                "recipe uses: take the checkpoint without them."
            )
        stable = config.do_stable_layer_norm
        super().__init__(
            model,
            WAVEFORM_PRE_NORM if stable else WAVEFORM_POST_NORM,
            source,
            preprocessing["sampling_rate"],
            preprocessing,
        )
        self.stable = stable

    @property
    def feature_encoder(self):
        """The convolutions that read the waveform."""
        return self.model.feature_extractor

    def steps(self, samples):
        counts = samples.clamp(min=self.receptive_field())
        config = self.model.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            counts = (counts - kernel) // stride + 1
        return counts

    def embed(self, wavs, counts):
        # Clips that are shorter than one token's reach end in silence
        receptive = self.receptive_field()
        if wavs.shape[1] < receptive:
            wavs = F.pad(wavs, (0, receptive - wavs.shape[1]))
        if self.preprocessing["do_normalize"]:
            wavs = standardised(wavs, counts)
        hidden, counts = self.convolve(wavs, counts.clamp(min=receptive))
        model, encoder = self.model, self.model.encoder
        projected = model.feature_projection(hidden.transpose(1, 2))
        hidden = projected if isinstance(projected, torch.Tensor) else projected[0]
        mask = valid(counts, hidden.shape[1])
        hidden = hidden.masked_fill(~mask.unsqueeze(-1), 0.0)
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if not self.stable:
            hidden = encoder.layer_norm(hidden)
        return Tokens(encoder.dropout(hidden), mask)

    def idle_parameters(self):
        """The mask token serves the pretext task alone."""
        token = getattr(self.model, "masked_spec_embed", None)
        return [] if token is None else [token]

    def receptive_field(self):
        """Samples that one token of the convolutions reads."""
        samples = 1
        config = self.model.config
        for kernel, stride in zip(
            config.conv_kernel[::-1], config.conv_stride[::-1], strict=True
        ):
            samples = (samples - 1) * stride + kernel
        return samples

    def convolve(self, wavs, counts):
        """Waveforms to features `(batch, channels, frames)` and valid frames."""
        hidden = wavs.unsqueeze(1)
        for layer in self.model.feature_extractor.conv_layers:
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

    def __init__(self, model, source, preprocessing):
        super().__init__(model, source, preprocessing)
        for points in self.points.layers:
            attention = points.sites["mhsa"].module
            attention.forward = FusedRelativeAttention(attention)

    def run_layer(self, layer, hidden, attention_mask, state):
        if "position_bias" not in state or state["length"] != hidden.shape[1]:
            first = self.points.layers[0].module.attention
            state["position_bias"] = first.compute_bias(*hidden.shape[1:2] * 2)
            state["length"] = hidden.shape[1]
        return layer(
            hidden, attention_mask=attention_mask, position_bias=state["position_bias"]
        )[0]


class FusedRelativeAttention:
    """`wavlm_attention` under the signature of transformers' WavLMAttention."""

    def __init__(self, attention):
        self.attention = attention

    def __call__(
        self,
        hidden_states,
        attention_mask=None,
        position_bias=None,
        prefix=None,
        **unused,
    ):
        output = wavlm_attention(
            self.attention, hidden_states, attention_mask, position_bias, prefix
        )
        return output, None, position_bias


def standardised(wavs, counts):
    """Zero mean and unit variance over the valid samples, zeros after them."""
    mask = valid(counts, wavs.shape[1])
    total = mask.sum(1, keepdim=True)
    mean = (wavs * mask).sum(1, keepdim=True) / total
    variance = ((wavs - mean).square() * mask).sum(1, keepdim=True) / total
    return (wavs - mean) / torch.sqrt(variance + 1e-7) * mask


def masked_group_norm(hidden, counts, norm):
    """GroupNorm with one channel a group over the valid frames of `(batch, channels,
    frames)`."""
    mask = valid(counts, hidden.shape[-1]).unsqueeze(1)
    total = counts[:, None, None]
    mean = (hidden * mask).sum(-1, keepdim=True) / total
    variance = ((hidden - mean).square() * mask).sum(-1, keepdim=True) / total
    hidden = (hidden - mean) / torch.sqrt(variance + norm.eps)
    return hidden * norm.weight.unsqueeze(-1) + norm.bias.unsqueeze(-1)
