"""Learned tokens (prompt tuning) and learned keys and values (prefix tuning).

In an encoder both start as the backbone's own tokens of a silent clip: random ones draw
attention away from the sound, which takes many steps to unlearn. `start=uniform` is
that of visual prompt tuning and of arXiv 2312.03694.
"""

from dataclasses import replace
from math import sqrt
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from petl_modules.core.access_points import LayerPoints
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.tokens import Tokens
from petl_modules.errors import UserError, one_of
from petl_modules.kinds import Layers, Parts, Probability, Range, Size
from petl_modules.methods.base import Method

STARTS = ("silence", "random", "uniform")
Start = Literal["silence", "random", "uniform"]
Length = Annotated[int, Range(1, 10_000)]
NOISE = 0.02  # standard deviation; no two vectors may start as the same one
PATCH = 3 * 16 * 16  # values of an image's patch, whose fan visual prompt tuning takes


class Prompt(nn.Module):
    """Learned tokens (VPT, arXiv 2203.12119; for AST: arXiv 2312.03694).

    Arguments
    ---------
    hidden_size : int
        Size of the tokens.
    prompt_length : int
        The number of learned vectors: tokens of a prompt; of a prefix half of them are
        keys and half values.
    prompt_dropout : float
        Dropout of the learned vectors.
    """

    no_decay = ("tokens",)
    sees_later = True

    def __init__(
        self,
        hidden_size: int,
        prompt_length: Length = 25,
        prompt_dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        positive("prompt_length", prompt_length)
        self.tokens = nn.Parameter(torch.randn(prompt_length, hidden_size) * NOISE)
        self.dropout = nn.Dropout(prompt_dropout)

    def forward(self, batch_size: int = 1) -> Tensor:
        """Tokens `(batch, prompt_length, hidden_size)`."""
        return self.dropout(self.tokens.expand(batch_size, -1, -1))


class Prefix(nn.Module):
    """Learned keys and values (Li and Liang, arXiv 2101.00190).

    Arguments
    ---------
    hidden_size : int
        Size of keys and values, over all heads.
    prompt_length : int
        The number of learned vectors: tokens of a prompt; of a prefix half of them are
        keys and half values.
    prompt_dropout : float
        Dropout of the learned vectors.
    projection : int or None
        Width of a two-layer projection that makes keys and values from learned
        vectors; null for keys and values learned directly.
    """

    no_decay = ("vectors",)

    def __init__(
        self,
        hidden_size: int,
        prompt_length: Length = 24,
        prompt_dropout: Probability = 0.0,
        projection: Size | None = None,
    ) -> None:
        super().__init__()
        positive("prompt_length", prompt_length)
        self.refuse(prompt_length)
        length = prompt_length // 2
        columns = hidden_size if projection else 2 * hidden_size
        self.vectors = nn.Parameter(torch.randn(length, columns) * NOISE)
        self.projection = None
        if projection:
            self.projection = nn.Sequential(
                nn.Linear(hidden_size, projection),
                nn.Tanh(),
                nn.Linear(projection, 2 * hidden_size),
            )
        self.dropout = nn.Dropout(prompt_dropout)

    @staticmethod
    def refuse(prompt_length: int = 24, **knobs: Any) -> None:
        """Raise a UserError for an odd number of vectors."""
        if prompt_length % 2:
            raise UserError(
                f"prompt_length={prompt_length} of prefix must be even: half of the "
                "vectors are keys, half values."
            )

    def forward(self) -> tuple[Tensor, ...]:
        """Keys and values, each `(prompt_length / 2, hidden_size)`."""
        vectors = self.vectors
        if self.projection is not None:
            vectors = self.projection(vectors)
        return self.dropout(vectors).chunk(2, dim=-1)


class PromptTokens(Method):
    """Prompt tuning: learned tokens after the backbone's special tokens.

    Arguments
    ---------
    deep : bool
        Whether every layer gets fresh tokens in the place of the last layer's, or only
        the input of the first.
    start : str
        What the learned vectors begin as: the backbone's own tokens of a silent clip,
        small random (normal) ones, or uniform ones (Xavier's, of a patch and a token).
    layers : list of int or None
        The layers that the method touches, such as [0, 1] or [-1]; null for all.
    parts : list of str or None
        The parts that it touches, encoder or decoder; null for all that there are.
    **knobs
        For `Prompt`.
    """

    module = Prompt

    def __init__(
        self,
        deep: bool = True,
        start: Start = "silence",
        layers: Layers | None = None,
        parts: Parts | None = None,
        **knobs: Any,
    ) -> None:
        super().__init__(layers, parts)
        self.deep, self.start = deep, one_of("start", start, STARTS)
        self.prompt_knobs = knobs

    def attach(self, model: AdaptedModel) -> None:
        if not model.takes_prompts():
            raise UserError(
                f"prompt: the attention of {model.source} is within windows that have "
                "no room for learned tokens. Other methods suit it."
            )
        heard = self.start == "silence" and not self.written_over
        silence = model.silent_inputs() if heard else None
        layers = self.chosen_layers(model)
        for layer in layers if self.deep else layers[:1]:
            prompt = Prompt(layer.hidden_size, **self.prompt_knobs)
            if silence is not None:
                start_as(prompt.tokens, silence[layer.index])
            if self.start == "uniform":
                start_uniform(prompt.tokens, layer.hidden_size)
            self.hook(layer, "input", model.add(self, layer, "input", prompt))

    def hook(self, layer: LayerPoints, site: str, module: Any) -> None:
        layer.before(lambda tokens: with_prompts(tokens, module))


class PrefixKeysValues(Method):
    """Prefix tuning of every self-attention.

    Arguments
    ---------
    start : str
        What the learned vectors begin as: the backbone's own tokens of a silent clip
        (with a projection and in a decoder as random), small random (normal) ones, or
        uniform ones (Xavier's, of a patch and a token).
    layers : list of int or None
        The layers that the method touches, such as [0, 1] or [-1]; null for all.
    parts : list of str or None
        The parts that it touches, encoder or decoder; null for all that there are.
    **knobs
        For `Prefix`.
    """

    module = Prefix

    def __init__(
        self,
        start: Start = "silence",
        layers: Layers | None = None,
        parts: Parts | None = None,
        **knobs: Any,
    ) -> None:
        super().__init__(layers, parts)
        Prefix.refuse(**knobs)
        self.start, self.prefix_knobs = one_of("start", start, STARTS), knobs

    def attach(self, model: AdaptedModel) -> None:
        heard = self.start == "silence" and not self.written_over
        silence = model.silent_inputs() if heard else None
        for layer in self.chosen_layers(model):
            if not model.takes_prefix(layer):
                raise UserError(
                    f"prefix: the attention of {model.source} takes no learned keys "
                    "and values. Other methods suit it."
                )
            prefix = Prefix(layer.hidden_size, **self.prefix_knobs)
            direct = prefix.projection is None and not layer.is_decoder
            if silence is not None and direct:
                start_as(prefix.vectors, keys_and_values(layer, silence[layer.index]))
            if self.start == "uniform":
                start_uniform(prefix.vectors, layer.hidden_size)
            self.hook(layer, "mhsa", model.add(self, layer, "mhsa", prefix))

    def hook(self, layer: LayerPoints, site: str, module: Any) -> None:
        layer.sites[site].with_argument("prefix", module)


def with_prompts(tokens: Tokens, prompt: Prompt) -> Tokens:
    """`tokens` with the prompt's tokens in the place of earlier prompts, if any."""
    batch = tokens.hidden.shape[0]
    new = prompt(batch).to(tokens.hidden.dtype)
    valid = tokens.mask.new_ones(batch, new.shape[1])
    head, tail = tokens.special, tokens.special + tokens.prompts
    hidden, mask = tokens.hidden, tokens.mask
    return replace(
        tokens,
        hidden=torch.cat([hidden[:, :head], new, hidden[:, tail:]], 1),
        mask=torch.cat([mask[:, :head], valid, mask[:, tail:]], 1),
        prompts=new.shape[1],
    )


@torch.no_grad()
def keys_and_values(layer: LayerPoints, inputs: Tensor) -> Tensor:
    """The keys and values of a layer's attention, `(tokens, 2 hidden)`."""
    inputs = layer.attended(inputs)
    return torch.cat([layer.projections[name](inputs) for name in ("k", "v")], -1)


@torch.no_grad()
def start_as(parameter: nn.Parameter, vectors: Tensor) -> None:
    """Set a parameter's rows to vectors spread over those given, with some noise."""
    places = torch.linspace(0, len(vectors) - 1, len(parameter)).round().long()
    parameter.copy_(vectors[places] + NOISE * torch.randn_like(parameter))


def start_uniform(parameter: nn.Parameter, hidden_size: int) -> None:
    """Draw a parameter as visual prompt tuning does: uniform, by Xavier's bound for a
    patch of an image and a token."""
    bound = sqrt(6 / (PATCH + hidden_size))
    nn.init.uniform_(parameter, -bound, bound)


def positive(name: str, value: object) -> None:
    """Raise unless `value` is a whole number above 0."""
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name}={value} must be a whole number of at least 1.")
