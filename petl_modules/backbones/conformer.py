"""Conformers (Gulati et al., arXiv 2005.08100): wav2vec2-conformer, and w2v-BERT 2.0.

A layer is a half step of feed-forward, self-attention that knows relative positions, a
convolution, and another half step; a norm ends it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.backbones import registry
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.checkpoint import Checkpoint, with_prefixes
from petl_modules.backbones.features import KaldiFilterbank, standardised_bins
from petl_modules.backbones.waveform import (
    PREPROCESSING,
    WaveformBackbone,
    mask_token,
    refuse_convolutions_after,
)
from petl_modules.core.family import Block, Family
from petl_modules.core.masking import valid
from petl_modules.core.tokens import Tokens

BERT = Family(
    layers="encoder.layers",
    mhsa="self_attn",
    mhsa_norm="self_attn_layer_norm",
    ffn="ffn2",
    ffn_norm="ffn2_layer_norm",
    q="self_attn.linear_q",
    k="self_attn.linear_k",
    v="self_attn.linear_v",
    o="self_attn.linear_out",
    fc1="ffn2.intermediate_dense",
    fc2="ffn2.output_dense",
    block_norm="final_layer_norm",
    ffn_gain=0.5,
    blocks={
        "ffn1": Block("ffn1", "ffn1", "ffn1_layer_norm", 0.5),
        "conv": Block("conv_module", "conv_module", "conv_module.layer_norm"),
    },
    first="ffn1",
)
CONFORMER = replace(BERT, last_norm="encoder.layer_norm")
FILTERBANK = {"sampling_rate": 16000, "num_mel_bins": 80, "stride": 2}
SIXTEEN_BITS = 2.0**15  # Kaldi's waveforms are whole numbers


class Wav2Vec2ConformerBackbone(WaveformBackbone):
    """wav2vec2-conformer (fairseq S2T, arXiv 2010.05171): wav2vec 2.0 with Conformer
    layers, whose convolutions read zeros after a clip.

    Arguments
    ---------
    model : transformers.Wav2Vec2ConformerModel
    source : str
    preprocessing : dict
        sampling_rate (Hz), do_normalize.
    """

    def __init__(self, model: Any, source: str, preprocessing: dict[str, Any]) -> None:
        super().__init__(model, source, preprocessing, CONFORMER)
        for points in self.points.layers:
            convolution = points.sites["conv"].module.depthwise_conv
            convolution.register_forward_pre_hook(self._silent_padding)

    def _silent_padding(self, module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        mask = self.points.mask
        return args if mask is None else (args[0] * mask.unsqueeze(1),)

    def placed(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden  # its attention knows positions

    def idle_parameters(self) -> list[nn.Parameter]:
        """Nor does wav2vec 2.0's own way to know positions serve here."""
        positions = self.model.encoder.pos_conv_embed.parameters()
        return [*super().idle_parameters(), *positions]

    def shared_by_layers(self, length: int) -> dict[str, Any]:
        return relative_positions(self.model.encoder, length)

    def train(self, mode: bool = True) -> "Wav2Vec2ConformerBackbone":
        super().train(mode)
        return statistics_of_pretraining(self)


class Wav2Vec2BertBackbone(Backbone):
    """w2v-BERT 2.0 (arXiv 2312.05187): Kaldi's filterbank, each bin normalised over the
    clip, two frames a token.

    Arguments
    ---------
    model : transformers.Wav2Vec2BertModel
    source : str
    preprocessing : dict
        sampling_rate (Hz), num_mel_bins, stride (frames a token).
    spec_augment : callable or None
    """

    def __init__(
        self,
        model: Any,
        source: str,
        preprocessing: dict[str, Any],
        spec_augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        refuse_convolutions_after(model.config, source)
        rate = preprocessing["sampling_rate"]
        super().__init__(model, BERT, source, rate, preprocessing, spec_augment)
        bins, self.stride = preprocessing["num_mel_bins"], preprocessing["stride"]
        self.filterbank = KaldiFilterbank(rate, bins, window_power=0.85)
        # two frames or more, or there is no deviation of a bin
        self.shortest = max(2, self.stride)

    def frames(self, samples: Tensor) -> Tensor:
        """Frames that clips of so many samples have, those that fill them up too."""
        return self.filterbank.frames(samples).clamp(min=self.shortest)

    def steps(self, samples: Tensor) -> Tensor:
        return self.frames(samples) // self.stride

    def embed(self, wavs: Tensor, counts: Tensor) -> Tokens:
        # Clips that are shorter than one token's reach end in silence
        bank = self.filterbank
        samples = bank.length + (self.shortest - 1) * bank.shift
        wavs = F.pad(wavs, (0, max(0, samples - wavs.shape[1])))
        features = bank(wavs * SIXTEEN_BITS)
        features = standardised_bins(features, self.frames(counts), 0.0, 1e-7)
        features = self.augmented(features.mT).mT
        whole = features.shape[1] // self.stride * self.stride
        features = features[:, :whole].unflatten(1, (-1, self.stride)).flatten(2)
        projection = self.model.feature_projection
        features = features.to(projection.projection.weight.dtype)
        hidden, _ = projection(features)
        mask = valid(self.steps(counts), hidden.shape[1])
        hidden = hidden.masked_fill(~mask.unsqueeze(-1), 0.0)
        return Tokens(self.model.encoder.dropout(hidden), mask)

    def shared_by_layers(self, length: int) -> dict[str, Any]:
        return relative_positions(self.model.encoder, length)

    def run_layer(
        self,
        layer: nn.Module,
        hidden: Tensor,
        attention_mask: Tensor | None,
        **shared: Any,
    ) -> Tensor:
        mask = None if attention_mask is None else attention_mask[:, 0, 0]
        return super().run_layer(
            layer, hidden, attention_mask, conv_attention_mask=mask, **shared
        )

    def idle_parameters(self) -> list[nn.Parameter]:
        return mask_token(self.model)


def relative_positions(encoder: Any, length: int) -> dict[str, Any]:
    """What the layers of a Conformer are told of relative positions; nothing where each
    has a table of its own."""
    if encoder.embed_positions is None:
        return {}
    like = encoder.layers[0].self_attn.linear_q.weight  # also of a narrow base
    positions = encoder.embed_positions(like.new_empty(1, length, like.shape[1]))
    return {"relative_position_embeddings": positions}


def statistics_of_pretraining(backbone: Any) -> Any:
    """The backbone, with its BatchNorms as they were in pretraining, in training too:
    those of a batch would count its padding."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    return backbone


def load_wav2vec2_conformer(checkpoint: Checkpoint) -> Wav2Vec2ConformerBackbone:
    """A wav2vec2-conformer."""
    checkpoint.no_spec_augment()
    model = with_prefixes(checkpoint.model("Wav2Vec2ConformerModel"))
    preprocessing = checkpoint.preprocessing(PREPROCESSING)
    return Wav2Vec2ConformerBackbone(model, checkpoint.source, preprocessing)


def load_wav2vec2_bert(checkpoint: Checkpoint) -> Wav2Vec2BertBackbone:
    """A w2v-BERT; its features are normalised, so that SpecAugment fills with 0."""
    return Wav2Vec2BertBackbone(
        with_prefixes(checkpoint.model("Wav2Vec2BertModel")),
        checkpoint.source,
        checkpoint.preprocessing(FILTERBANK),
        checkpoint.spec_augment(fill=0.0),
    )


registry.register(
    "wav2vec2-conformer", load_wav2vec2_conformer, {"wav2vec2-conformer": {}}
)
registry.register(
    "wav2vec2-bert",
    load_wav2vec2_bert,
    {"wav2vec2-bert": {}, "facebook/w2v-bert-2.0": {}},
)
