"""HTS-AT (Chen et al., arXiv 2202.00874) as CLAP has it (Wu et al., 2211.06687): the
encoder of its sounds, whose layers attend within windows of a spectrogram.

The spectrogram of a clip is an image: its time is cut into pieces that are laid one
under the other. Layers come in stages, and between these four patches become one, twice
as wide.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ClapFeatureExtractor

from petl_modules.backbones import registry
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.checkpoint import Checkpoint
from petl_modules.backbones.features import DecibelMel
from petl_modules.core.access_points import LayerPoints
from petl_modules.core.family import Family
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError, one_of

FAMILY = Family(
    layers="layers",  # and the blocks of each stage
    mhsa="attention",
    mhsa_norm="layernorm_before",
    ffn=("intermediate", "output"),
    ffn_norm="layernorm_after",
    q="attention.self.query",
    k="attention.self.key",
    v="attention.self.value",
    o="attention.output.dense",
    fc1="intermediate.dense",
    fc2="output.dense",
    last_norm="norm",
)
PREPROCESSING = {
    "sampling_rate": 48000,
    "max_length_s": 10,
    "fft_window_size": 1024,
    "hop_length": 480,
    "frequency_min": 50,
    "frequency_max": 14000,
    "truncation": "rand_trunc",
    "padding": "repeatpad",
}
PADDINGS = ("repeatpad", "repeat", "pad")


class HTSATBackbone(Backbone):
    """CLAP's HTS-AT, of which each layer sees the tokens of a whole clip, row by row of
    the image.

    It hears 10 s: a shorter clip is repeated and filled up with silence, as the
    checkpoint's preprocessor does it; a longer one, of which that takes a random part,
    is refused. What leaves it are frequency bands by steps of time, as with AST.

    Arguments
    ---------
    model : transformers.ClapAudioModel
    source : str
    preprocessing : dict
        Of ClapFeatureExtractor: sampling_rate (Hz), max_length_s, fft_window_size,
        hop_length, frequency_min, frequency_max (Hz), truncation, padding.
    spec_augment : callable or None

    Raises
    ------
    UserError
        For a checkpoint that fuses parts of long clips, or whose image does not suit
        its windows or its preprocessor.
    """

    hears_silence = True
    keeps_time = False

    def __init__(
        self,
        model: Any,
        source: str,
        preprocessing: dict[str, Any],
        spec_augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        refuse_fusion(model.config, source)
        one_of("padding", preprocessing["padding"], PADDINGS)
        rate = preprocessing["sampling_rate"]
        self.samples = round(preprocessing["max_length_s"] * rate)
        frames = 1 + self.samples // preprocessing["hop_length"]
        refuse_image(model.audio_encoder, frames, source)
        stages = model.audio_encoder.layers
        paths = tuple(f"layers.{i}.blocks" for i in range(len(stages)))
        family = replace(FAMILY, layers=paths)
        super().__init__(model, family, source, rate, preprocessing, spec_augment)
        self.hidden_size = self.points.hidden_size
        extractor = ClapFeatureExtractor(
            feature_size=model.config.num_mel_bins, **preprocessing
        )
        fused = preprocessing["truncation"] == "fusion"
        filters = extractor.mel_filters if fused else extractor.mel_filters_slaney
        self.log_mel = DecibelMel(
            torch.tensor(filters, dtype=torch.float32),
            extractor.fft_window_size,
            extractor.hop_length,
        )
        for points in self.points.layers:
            block: Any = points.module
            block.set_shift_and_window_size(block.input_resolution)
            block.__class__ = block_of_tokens()
            block.attention.__class__ = attention_in_windows()
        ends = torch.tensor(model.config.depths, device="cpu").cumsum(0) - 1
        self.stages = dict(zip(ends.tolist(), stages, strict=True))
        self.pieces = self.encoder.freq_ratio
        rows, columns = self.encoder.input_resolutions[-1]
        self.bands, self.time = rows // self.pieces, columns * self.pieces

    @property
    def encoder(self) -> Any:
        """HTS-AT itself."""
        return self.model.audio_encoder

    def steps(self, samples: Any) -> Any:
        return samples * 0 + self.time

    def capacity(self) -> int | None:
        return self.samples

    def takes_prompts(self) -> bool:
        """No: its windows divide the image, and have no room for more."""
        return False

    def embed(self, wavs: Tensor, counts: Tensor) -> Tokens:
        if wavs.shape[1] > self.samples:
            raise UserError(
                f"A clip of {wavs.shape[1] / self.sample_rate:.1f} s is longer than "
                f"the {self.samples / self.sample_rate:g} s that {self.source} hears: "
                "set max_duration to cut clips."
            )
        features = self.augmented(self.log_mel(self.filled(wavs, counts)))
        encoder = self.encoder
        norm, projection = encoder.batch_norm, encoder.patch_embed.proj
        # the statistics of pretraining, in training too: a batch's hang on the batch
        features = F.batch_norm(
            features,
            norm.running_mean.float(),
            norm.running_var.float(),
            norm.weight.float(),
            norm.bias.float(),
            eps=norm.eps,
        )
        image = encoder.reshape_mel2img(features.mT.unsqueeze(1))
        hidden = encoder.patch_embed(image.to(projection.weight.dtype))
        return Tokens(hidden, everywhere(hidden))

    def filled(self, wavs: Tensor, counts: Tensor) -> Tensor:
        """Clips as long as they are heard, `(batch, samples)`."""
        counts = counts.unsqueeze(1)
        places = torch.arange(self.samples, device=wavs.device)
        again = wavs.gather(1, places % counts)
        if self.preprocessing["padding"] == "repeat":
            return again
        heard = counts
        if self.preprocessing["padding"] == "repeatpad":  # in whole
            full = torch.full_like(counts, self.samples)
            heard = full - full % counts
        return again.where(places < heard, 0.0)

    def passed_on(self, layer: LayerPoints, tokens: Tokens) -> Tokens:
        if layer.index not in self.stages:
            return tokens
        stage: Any = self.stages[layer.index]
        if stage.downsample is not None:
            grid = stage.blocks[0].input_resolution
            hidden = stage.downsample(tokens.hidden, grid)
            return replace(tokens, hidden=hidden, mask=everywhere(hidden))
        pieces = tokens.hidden.unflatten(1, (self.pieces, self.bands, -1))
        hidden = pieces.transpose(1, 2).flatten(1, 3)
        return replace(tokens, hidden=hidden, bands=self.bands)


@cache
def block_of_tokens() -> type:
    """transformers' ClapAudioLayer with tokens in and tokens out, its windows being its
    attention's: a class for modules that are there, which keep their names and
    weights."""
    from transformers.models.clap.modeling_clap import ClapAudioLayer

    class BlockOfTokens(ClapAudioLayer):
        def forward(
            self, hidden_states: Tensor, *unused: Any, **more: Any
        ) -> tuple[Tensor]:
            grid = self.input_resolution
            apart = self.get_attn_mask(*grid, hidden_states.dtype, hidden_states.device)
            attended = self.attention(
                self.layernorm_before(hidden_states),
                apart,
                grid=grid,
                shift=self.shift_size,
                size=self.window_size,
            )
            hidden_states = hidden_states + self.drop_path(attended)
            step = self.intermediate(self.layernorm_after(hidden_states))
            return (hidden_states + self.output(step),)

    return BlockOfTokens


@cache
def attention_in_windows() -> type:
    """transformers' ClapAudioAttention over all tokens of a clip, through fused
    attention, with prefixes: a class for modules that are there."""
    from transformers.models.clap.modeling_clap import ClapAudioAttention

    class AttentionInWindows(ClapAudioAttention):
        def forward(
            self,
            hidden_states: Tensor,
            apart: Tensor | None,
            grid: tuple[int, int],
            shift: int,
            size: int,
            prefix: tuple[Tensor, Tensor] | None = None,
        ) -> Tensor:
            inner = self.self
            heads, (rows, columns) = inner.num_attention_heads, grid
            count = (rows // size, columns // size)
            windows = count[0] * count[1]

            def in_windows(part: Tensor) -> Tensor:
                """`(batch, tokens, width)` to `(batch, windows * heads, tokens of a
                window, size of a head)`."""
                image = part.unflatten(1, grid).roll((-shift, -shift), (1, 2))
                image = image.unflatten(3, (heads, -1)).unflatten(2, (-1, size))
                image = image.unflatten(1, (-1, size)).permute(0, 1, 3, 5, 2, 4, 6)
                return image.flatten(4, 5).flatten(1, 3)

            query, key, value = (
                in_windows(projection(hidden_states))
                for projection in (inner.query, inner.key, inner.value)
            )
            bias = inner.relative_position_bias_table[inner.relative_position_index]
            bias = bias.permute(2, 0, 1).expand(windows, -1, -1, -1)
            if apart is not None:  # what a shifted window has of other regions
                bias = bias + apart.unsqueeze(1)
            bias = bias.flatten(0, 1).to(query.dtype)
            if prefix is not None:  # every window sees it
                keys, values = (
                    part.to(key.dtype).unflatten(1, (heads, -1)).transpose(0, 1)
                    for part in prefix
                )
                shape = (len(key), windows, -1, -1, -1)
                key = torch.cat([keys.expand(shape).flatten(1, 2), key], 2)
                value = torch.cat([values.expand(shape).flatten(1, 2), value], 2)
                bias = F.pad(bias, (keys.shape[1], 0))
            dropout = inner.dropout.p if self.training else 0.0
            seen = F.scaled_dot_product_attention(query, key, value, bias, dropout)
            image = seen.unflatten(2, (size, size)).unflatten(1, (*count, heads))
            image = image.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6)
            image = image.flatten(3, 4).flatten(1, 2).roll((shift, shift), (1, 2))
            return self.output(image.flatten(1, 2), hidden_states)

    return AttentionInWindows


def everywhere(hidden: Tensor) -> Tensor:
    """The mask of tokens that are all valid."""
    return hidden.new_ones(hidden.shape[:2], dtype=torch.bool)


def refuse_fusion(config: Any, source: str) -> None:
    """Raise a UserError for a checkpoint that hears several parts of a long clip."""
    if config.enable_fusion:
        raise UserError(
            f"{source} fuses parts of clips that are longer than it hears "
            "(enable_fusion), which no recipe does: take a checkpoint without, such as "
            "laion/clap-htsat-unfused."
        )


def refuse_image(encoder: Any, frames: int, source: str) -> None:
    """Raise a UserError for an image that has no room for so many frames, or that
    windows do not divide at every stage."""
    most, size = encoder.spec_size * encoder.freq_ratio, encoder.config.window_size
    if frames > most:
        raise UserError(
            f"{source} is damaged: its image (spec_size) has room for {most} frames of "
            f"the {frames} that its preprocessor makes."
        )
    for grid in encoder.input_resolutions:
        if any(length % size for length in grid):
            raise UserError(
                f"{source} is damaged: windows of {size} x {size} patches "
                f"(window_size) do not divide the {grid[0]} x {grid[1]} of a stage."
            )


def load(checkpoint: Checkpoint) -> HTSATBackbone:
    """The encoder of a CLAP's sounds, or one that was saved alone."""
    inner = ("audio_config", "audio_model")
    return HTSATBackbone(
        checkpoint.model("ClapAudioModel", inner),
        checkpoint.source,
        checkpoint.preprocessing(PREPROCESSING),
        checkpoint.spec_augment(fill=None),
    )


registry.register("clap_audio_model", load, {"clap": {}})
registry.register("clap", load, {"laion/clap-htsat-unfused": {}})
