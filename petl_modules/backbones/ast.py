"""Audio Spectrogram Transformer (Gong et al., arXiv 2104.01778)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.backbones import registry
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.checkpoint import Checkpoint, with_prefixes
from petl_modules.backbones.features import KaldiFilterbank, Memory
from petl_modules.core.family import Family
from petl_modules.core.masking import valid
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError

FAMILY = Family(
    layers="layers",
    mhsa="attention",
    mhsa_norm="layernorm_before",
    ffn="mlp",
    ffn_norm="layernorm_after",
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    o="attention.o_proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    last_norm="layernorm",
)
PREPROCESSING = {
    "sampling_rate": 16000,
    "do_normalize": True,
    "mean": -4.2677393,
    "std": 4.5689974,
}


class ASTBackbone(Backbone):
    """AST on clips of any length up to its position table's.

    Padding is masked: a clip's tokens are the patches that lie inside it, whatever
    it is batched with. The table is cut to the tokens; when `max_duration` asks for
    more than the checkpoint's, its time axis is interpolated once, here.

    Arguments
    ---------
    model : transformers.ASTModel
    source : str
    preprocessing : dict
        sampling_rate (Hz), mean, std, do_normalize.
    max_duration : float or None
        Seconds that must fit.
    spec_augment : callable or None
    """

    def __init__(
        self,
        model: Any,
        source: str,
        preprocessing: dict[str, Any],
        max_duration: float | None = None,
        spec_augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        rate = preprocessing["sampling_rate"]
        super().__init__(model, FAMILY, source, rate, preprocessing, spec_augment)
        self.filterbank = KaldiFilterbank(rate, model.config.num_mel_bins)
        positions = model.embeddings.position_embeddings
        self.grid = model.embeddings.get_shape(model.config)
        if max_duration is not None:
            samples = torch.tensor(round(max_duration * rate), device="cpu")
            frames = self.filterbank.frames(samples)
            tokens = int(self.time_tokens(frames))
            if tokens > self.grid[1]:
                longer = stretched(positions.data, self.grid, tokens)
                model.embeddings.position_embeddings = nn.Parameter(longer)
                self.grid = (self.grid[0], tokens)
                self.stretched = True
                # what fills the table now, for whoever saves the model
                config, strides = model.config, tokens - 1
                config.max_length = strides * config.time_stride + config.patch_size

    def remember(self, mib: float) -> None:
        self.filterbank.memory = Memory(mib)

    def time_tokens(self, frames: Tensor) -> Tensor:
        """Number of patches along time that lie inside `frames` frames."""
        config = self.model.config
        return (frames - config.patch_size).clamp(min=0) // config.time_stride + 1

    def steps(self, samples: Tensor) -> Tensor:
        return self.time_tokens(self.filterbank.frames(samples))

    def capacity(self) -> int | None:
        config, bank = self.model.config, self.filterbank
        frames = (self.grid[1] - 1) * config.time_stride + config.patch_size
        return (frames - 1) * bank.shift + bank.length

    def embed(self, wavs: Tensor, counts: Tensor) -> Tokens:
        bank = self.filterbank
        shortest = bank.length + (self.model.config.patch_size - 1) * bank.shift
        wavs = F.pad(wavs, (0, max(0, shortest - wavs.shape[1])))
        features = bank(wavs)
        if self.preprocessing["do_normalize"]:
            mean, std = self.preprocessing["mean"], self.preprocessing["std"]
            features = (features - mean) / (2 * std)
        features = self.augmented(features.transpose(1, 2))
        embeddings = self.model.embeddings
        projection = embeddings.patch_embeddings.projection
        features = features.unsqueeze(1).to(projection.weight.dtype)
        patches = projection(features)  # (batch, hidden, freq, time)
        time = patches.shape[-1]
        if time > self.grid[1]:
            raise UserError(
                f"A clip of {wavs.shape[1] / self.sample_rate:.1f} s is longer than "
                "the backbone's position table: set max_duration to cut clips, or to "
                "the longest clip's seconds to stretch the table."
            )
        positions = embeddings.position_embeddings
        table = positions[:, 2:].unflatten(1, self.grid)[:, :, :time].flatten(1, 2)
        hidden = patches.flatten(2).transpose(1, 2) + table
        inside = valid(self.steps(counts), time)
        inside = inside.unsqueeze(1).expand(-1, self.grid[0], -1).flatten(1)
        hidden, inside = valid_first(hidden, inside)
        special = torch.cat([embeddings.cls_token, embeddings.distillation_token], 1)
        special = (special + positions[:, :2]).expand(hidden.shape[0], -1, -1)
        hidden = embeddings.dropout(torch.cat([special, hidden], 1))
        inside = F.pad(inside, (2, 0), value=True)
        return Tokens(hidden, inside, special=2, bands=self.grid[0])


def valid_first(hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and mask with the padding moved to the end.

    The patches of one frequency follow those of another, each with its padding; a
    convolution over the tokens must meet them as it does where nothing is padded.
    """
    after = mask.sum(1, keepdim=True) + (~mask).cumsum(1)
    places = torch.where(mask, mask.cumsum(1), after) - 1
    index = places.unsqueeze(-1).expand_as(hidden)
    moved = torch.empty_like(hidden).scatter(1, index, hidden)
    return moved, torch.empty_like(mask).scatter(1, places, mask)


def stretched(positions: Tensor, grid: tuple[int, int], time: int) -> Tensor:
    """Position table `(1, 2 + freq * time, hidden)` with its time axis interpolated
    to `time` places."""
    table = positions[:, 2:].unflatten(1, grid).permute(0, 3, 1, 2)
    table = F.interpolate(table, (grid[0], time), mode="bilinear", align_corners=False)
    table = table.permute(0, 2, 3, 1).flatten(1, 2)
    return torch.cat([positions[:, :2], table], 1)


def load(checkpoint: Checkpoint) -> ASTBackbone:
    """An AST; its features are normalised, so that SpecAugment fills with 0."""
    model = with_prefixes(checkpoint.model("ASTModel"))
    if not checkpoint.pretrained:
        # transformers leaves these at zero, which hides every position
        model.embeddings.position_embeddings.data.normal_(std=0.02)
    return ASTBackbone(
        model,
        checkpoint.source,
        checkpoint.preprocessing(PREPROCESSING),
        checkpoint.max_duration,
        checkpoint.spec_augment(fill=0.0),
    )


registry.register(
    "audio-spectrogram-transformer",
    load,
    {"ast": {}, "MIT/ast-finetuned-audioset-10-10-0.4593": {}},
)
