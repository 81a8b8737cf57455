"""Moonshine (Jeffries et al., arXiv 2410.15608): its encoder, which reads waveforms of
any length and knows positions by rotation, and all of it."""

import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer

from petl_modules.backbones import registry
from petl_modules.backbones.base import Backbone
from petl_modules.backbones.checkpoint import Checkpoint, with_prefixes
from petl_modules.backbones.writing import Writer
from petl_modules.core.family import Family
from petl_modules.core.masking import valid
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError

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
DECODER = replace(
    FAMILY,
    ffn_norm="final_layernorm",
    last_norm="norm",
    cross=tuple(f"encoder_attn.{name}_proj" for name in ("q", "k", "v", "o")),
)
PREPROCESSING = {"sampling_rate": 16000}
# of a text, or a decoder may repeat itself: what its authors decode with
TOKENS_PER_SECOND = 6.5


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

    part_of = ("MoonshineModel", "encoder")

    def __init__(self, model: Any, source: str, preprocessing: dict[str, Any]) -> None:
        rate = preprocessing["sampling_rate"]
        super().__init__(model, FAMILY, source, rate, preprocessing)
        encoder = self.encoder
        self.convolutions = [
            (conv.kernel_size[0], conv.stride[0])
            for conv in (encoder.conv1, encoder.conv2, encoder.conv3)
        ]
        self.receptive_field = 1
        for kernel, stride in reversed(self.convolutions):
            self.receptive_field = (self.receptive_field - 1) * stride + kernel
        for module in model.modules():  # wider heads are for speed, and know no prefix
            if hasattr(module, "head_dim_padding"):
                module.head_dim_padding = 0

    def steps(self, samples: Tensor) -> Tensor:
        counts = samples.clamp(min=self.receptive_field)
        for kernel, stride in self.convolutions:
            counts = (counts - kernel) // stride + 1
        return counts

    def embed(self, wavs: Tensor, counts: Tensor) -> Tokens:
        # Clips that are shorter than one token's reach end in silence
        wavs = F.pad(wavs, (0, max(0, self.receptive_field - wavs.shape[1])))
        model = self.encoder
        wavs = wavs.unsqueeze(1).to(model.conv1.weight.dtype)
        kernel, stride = self.convolutions[0]
        frames = (counts.clamp(min=self.receptive_field) - kernel) // stride + 1
        hidden = norm_of_clips(torch.tanh(model.conv1(wavs)), frames, model.groupnorm)
        hidden = F.gelu(model.conv3(F.gelu(model.conv2(hidden)))).mT
        return Tokens(hidden, valid(self.steps(counts), hidden.shape[1]))

    def shared_by_layers(self, length: int) -> dict[str, Any]:
        encoder = self.encoder
        like = encoder.layers[0].self_attn.q_proj.weight  # also of a narrow base
        places = torch.arange(length, device=like.device).unsqueeze(0)
        return {"position_embeddings": encoder.rotary_emb(like, places)}


class MoonshineWithDecoder(Writer, MoonshineBackbone):
    """Moonshine with its decoder: sound to text, of English alone.

    A clip costs what it is long, and its text has at most 6.5 tokens a second.

    Arguments
    ---------
    model : transformers.MoonshineForConditionalGeneration
    source : str
        Where the tokenizer is found too.
    preprocessing : dict
    """

    part_of = None
    decoder_family = DECODER

    def __init__(self, model: Any, source: str, preprocessing: dict[str, Any]) -> None:
        super().__init__(model, source, preprocessing)
        self.text_room = self.longest_text = model.config.max_position_embeddings
        stride = math.prod(stride for _, stride in self.convolutions)
        self.tokens_per_step = TOKENS_PER_SECOND * stride / self.sample_rate

    def longest_texts(self, sound: Tensor, counts: Tensor | None) -> list[int]:
        steps = [sound.shape[1]] * len(sound) if counts is None else counts.tolist()
        longest = (math.ceil(n * self.tokens_per_step) for n in steps)
        return [min(1 + n, self.longest_text) for n in longest]

    def numbers(
        self, text: str, language: str | None = None, speech_task: str = "transcribe"
    ) -> Tensor:
        config = self.model.config
        inner = self.tokenizer(text.strip(), add_special_tokens=False).input_ids
        return torch.tensor([config.bos_token_id, *inner, config.eos_token_id])

    def refuse_language(self, language: str | None) -> None:
        if language is not None:
            raise UserError(
                f"language={language}: {self.source} knows English only, and takes no "
                "language."
            )

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer.

        Raises
        ------
        UserError
            If there is none.
        """
        try:
            return AutoTokenizer.from_pretrained(self.source, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.source} has no tokenizer: put the files that were published "
                "with its weights (tokenizer.json and others) beside them."
            ) from error


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
    """A Moonshine's encoder, or all of it."""
    checkpoint.no_spec_augment()
    if checkpoint.decoder:
        model = checkpoint.model("MoonshineForConditionalGeneration")
    else:
        model = checkpoint.part(MoonshineBackbone)
    kind = MoonshineWithDecoder if checkpoint.decoder else MoonshineBackbone
    preprocessing = checkpoint.preprocessing(PREPROCESSING)
    return kind(with_prefixes(model), checkpoint.source, preprocessing)


registry.register("moonshine", load, {"moonshine": {}}, writes=True)
