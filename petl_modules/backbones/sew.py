"""SEW (Wu et al., arXiv 2109.06870): wav2vec 2.0 with two frames in a token."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from petl_modules.backbones import registry
from petl_modules.backbones.checkpoint import Checkpoint, with_prefixes
from petl_modules.backbones.waveform import PREPROCESSING, WaveformBackbone
from petl_modules.core.access_points import LayerPoints
from petl_modules.core.tokens import Tokens


class SEWBackbone(WaveformBackbone):
    """SEW: before its layers the frames of the convolutions are averaged in pairs, and
    behind them a projection makes a step of time of every frame again. That is no
    norm: beside the head, what the method puts in trains alone.

    A frame without a pair at a clip's end counts where it is near others, and is no
    step of its own; transformers gives zeros there.

    Arguments
    ---------
    model : transformers.SEWModel
    source : str
    preprocessing : dict
        sampling_rate (Hz), do_normalize.
    """

    def __init__(self, model: Any, source: str, preprocessing: dict[str, Any]) -> None:
        super().__init__(model, source, preprocessing)
        self.squeeze = model.config.squeeze_factor
        self.points.last_norm = None

    def receptive_field(self, frames: int = 1) -> int:
        """Samples that so many tokens of the layers read."""
        return super().receptive_field(frames * self.squeeze)

    def steps(self, samples: Tensor) -> Tensor:
        return super().steps(samples) // self.squeeze * self.squeeze

    def embed(self, wavs: Tensor, counts: Tensor) -> Tokens:
        tokens = super().embed(wavs, counts)
        last_frames = slice(self.squeeze - 1, None, self.squeeze)
        return replace(tokens, mask=tokens.mask[:, last_frames])

    def projected(self, features: Tensor) -> Tensor:
        model = self.model
        features = model.layer_norm(features)
        if model.project_features:
            features = model.feature_projection(features)
        return model.feature_dropout(features)

    def placed(self, hidden: Tensor, mask: Tensor) -> Tensor:
        encoder, frames = self.layered, hidden.mT
        pooled, places = encoder.pool(frames), encoder.pos_conv_embed(frames)
        return encoder.layer_norm((pooled + places[..., : pooled.shape[-1]]).mT)

    def passed_on(self, layer: LayerPoints, tokens: Tokens) -> Tokens:
        if layer is not self.points.layers[-1]:
            return tokens
        hidden = self.layered.upsample(tokens.hidden)
        return replace(self.by_frame(tokens), hidden=hidden)

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None, all_layers: bool = False
    ) -> Tokens:
        """As of every backbone; the layers below the last have their tokens once for
        each of their frames."""
        tokens = super().forward(wavs, wav_lens, all_layers)
        if tokens.layers is None:
            return tokens
        *below, last = tokens.layers
        return replace(tokens, layers=(*map(self.by_frame, below), last))

    def by_frame(self, tokens: Tokens) -> Tokens:
        """Tokens of the layers, learned ones too, as often as they have frames."""
        hidden, mask = (
            states.repeat_interleave(self.squeeze, 1)
            for states in (tokens.hidden, tokens.mask)
        )
        prompts = tokens.prompts * self.squeeze
        return replace(tokens, hidden=hidden, mask=mask, prompts=prompts)


def load(checkpoint: Checkpoint) -> SEWBackbone:
    """A SEW."""
    checkpoint.no_spec_augment()
    model = with_prefixes(checkpoint.model("SEWModel"))
    preprocessing = checkpoint.preprocessing(PREPROCESSING)
    return SEWBackbone(model, checkpoint.source, preprocessing)


registry.register("sew", load, {"sew": {}})
