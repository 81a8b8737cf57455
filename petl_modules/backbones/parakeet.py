"""Parakeet (NVIDIA): the encoder of its FastConformer (Rekesh et al., arXiv
2305.05084), eight frames of 10 ms a token."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ParakeetFeatureExtractor

from petl_modules.backbones import registry
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.checkpoint import Checkpoint, with_prefixes
from petl_modules.backbones.conformer import statistics_of_pretraining
from petl_modules.backbones.features import NemoLogMel
from petl_modules.core.family import Block, Family
from petl_modules.core.masking import valid
from petl_modules.core.tokens import Tokens

FAMILY = Family(
    layers="layers",
    mhsa="self_attn",
    mhsa_norm="norm_self_att",
    ffn="feed_forward2",
    ffn_norm="norm_feed_forward2",
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    o="self_attn.o_proj",
    fc1="feed_forward2.linear1",
    fc2="feed_forward2.linear2",
    block_norm="norm_out",
    ffn_gain=0.5,
    blocks={
        "ffn1": Block("feed_forward1", "feed_forward1", "norm_feed_forward1", 0.5),
        "conv": Block("conv", "conv", "norm_conv"),
    },
    first="ffn1",
)
PREPROCESSING = {
    "sampling_rate": 16000,
    "n_fft": 512,
    "hop_length": 160,
    "win_length": 400,
    "preemphasis": 0.97,
}
SHORTEST = 2  # frames, or there is no deviation of a bin


class ParakeetBackbone(Backbone):
    """Parakeet's encoder; neither its features' normalisation nor its convolutions
    count padding.

    Arguments
    ---------
    model : transformers.ParakeetEncoder
    source : str
    preprocessing : dict
        Of ParakeetFeatureExtractor: sampling_rate (Hz), n_fft, hop_length, win_length,
        preemphasis.
    spec_augment : callable or None
    """

    part_of: tuple[str, str] | None = ("ParakeetForCTC", "encoder")

    def __init__(
        self,
        model: Any,
        source: str,
        preprocessing: dict[str, Any],
        spec_augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        rate = preprocessing["sampling_rate"]
        super().__init__(model, FAMILY, source, rate, preprocessing, spec_augment)
        extractor = ParakeetFeatureExtractor(
            feature_size=model.config.num_mel_bins, **preprocessing
        )
        self.hop_length = extractor.hop_length
        self.log_mel = NemoLogMel(
            extractor.mel_filters,
            extractor.n_fft,
            extractor.hop_length,
            extractor.win_length,
            extractor.preemphasis,
        )
        convolutions = [m for m in model.subsampling.layers if isinstance(m, nn.Conv2d)]
        self.reaches = [
            (conv.kernel_size[0] - 2 * conv.padding[0], conv.stride[0])
            for conv in convolutions
        ]

    def steps(self, samples: Tensor) -> Tensor:
        counts = (samples // self.hop_length).clamp(min=SHORTEST)
        for reach, stride in self.reaches:
            counts = (counts - reach) // stride + 1
        return counts

    def embed(self, wavs: Tensor, counts: Tensor) -> Tokens:
        # Clips that are shorter than two frames end in silence
        shortest = SHORTEST * self.hop_length
        wavs = F.pad(wavs, (0, max(0, shortest - wavs.shape[1])))
        counts = counts.clamp(min=shortest)
        time = wavs.shape[1] // self.hop_length
        features = self.log_mel(wavs, counts)[:, :time]
        features = self.augmented(features.mT).mT
        frames = valid(counts // self.hop_length, time)
        model = self.model
        features = features.to(model.subsampling.linear.weight.dtype)
        hidden = model.subsampling(features, frames) * model.input_scale
        mask = valid(self.steps(counts), hidden.shape[1])
        return Tokens(F.dropout(hidden, model.dropout, model.training), mask)

    def shared_by_layers(self, length: int) -> dict[str, Any]:
        like = self.model.layers[0].self_attn.q_proj.weight  # also of a narrow base
        hidden = like.new_empty(1, length, 1)
        return {"position_embeddings": self.model.encode_positions(hidden)}

    def run_layer(
        self,
        layer: nn.Module,
        hidden: Tensor,
        attention_mask: Tensor | None,
        **shared: Any,
    ) -> Tensor:
        places = shared["position_embeddings"].expand(len(hidden), -1, -1)
        return super().run_layer(
            layer, hidden, attention_mask, position_embeddings=places
        )

    def train(self, mode: bool = True) -> "ParakeetBackbone":
        super().train(mode)
        return statistics_of_pretraining(self)


class ParakeetEncoderBackbone(ParakeetBackbone):
    """The same from a checkpoint of the encoder alone."""

    part_of = None


def load_part(checkpoint: Checkpoint) -> ParakeetBackbone:
    """The encoder of a Parakeet that writes; its features are normalised, so that
    SpecAugment fills with 0."""
    model = checkpoint.part(ParakeetBackbone, WRITERS[checkpoint.model_type])
    return built(ParakeetBackbone, model, checkpoint)


def load_encoder(checkpoint: Checkpoint) -> ParakeetBackbone:
    """A Parakeet's encoder."""
    model = checkpoint.model("ParakeetEncoder")
    return built(ParakeetEncoderBackbone, model, checkpoint)


def built(
    kind: type[ParakeetBackbone], model: Any, checkpoint: Checkpoint
) -> ParakeetBackbone:
    """A backbone of a loaded encoder."""
    return kind(
        with_prefixes(model),
        checkpoint.source,
        checkpoint.preprocessing(PREPROCESSING),
        checkpoint.spec_augment(fill=0.0),
    )


WRITERS = {
    "parakeet_ctc": "ParakeetForCTC",
    "parakeet_rnnt": "ParakeetForRNNT",
    "parakeet_tdt": "ParakeetForTDT",
}
for model_type in WRITERS:
    registry.register(model_type, load_part, {model_type: {}})
registry.register("parakeet_encoder", load_encoder, {"parakeet": {}})
