"""Learned tokens (prompt tuning) and learned keys and values (prefix tuning).

In an encoder both start as the backbone's own tokens of a silent clip: random ones draw
attention away from the sound, which takes many steps to unlearn. `start=uniform` is
that of visual prompt tuning and of arXiv 2312.03694.
"""

from dataclasses import replace
from math import sqrt

import torch
from torch import nn

from petl_modules.errors import UserError, one_of
from petl_modules.methods.base import Method

STARTS = ("silence", "random", "uniform")
NOISE = 0.02  # standard deviation; no two vectors may start as the same one
PATCH = 3 * 16 * 16  # values of an image's patch, whose fan visual prompt tuning takes


class Prompt(nn.Module):
    """Learned tokens (VPT, arXiv 2203.12119; for AST: arXiv 2312.03694).

    Arguments
    ---------
    hidden_size : int
        Size of the tokens.
    prompt_length : int
        Number of tokens.
    prompt_dropout : float
        On the tokens.
    """

    no_decay = ("tokens",)
    sees_later = True

    def __init__(self, hidden_size, prompt_length=25, prompt_dropout=0.0):
        super().__init__()
        positive("prompt_length", prompt_length)
        self.tokens = nn.Parameter(torch.randn(prompt_length, hidden_size) * NOISE)
        self.dropout = nn.Dropout(prompt_dropout)

    def forward(self, batch_size=1):
        """Tokens `(batch, prompt_length, hidden_size)`."""
        return self.dropout(self.tokens.expand(batch_size, -1, -1))


class Prefix(nn.Module):
    """Learned keys and values (Li and Liang, arXiv 2101.00190).

    Arguments
    ---------
    hidden_size : int
        Size of keys and values, over all heads.
    prompt_length : int
        Number of learned vectors, half of them keys and half values.
    prompt_dropout : float
        On keys and values.
    projection : int or None
        Width of a two-layer projection that makes keys and values from learned
        vectors, None for keys and values learned directly.
    """

    no_decay = ("vectors",)

    def __init__(
        self, hidden_size, prompt_length=24, prompt_dropout=0.0, projection=None
    ):
        super().__init__()
        positive("prompt_length", prompt_length)
        if prompt_length % 2:
            raise UserError(
                f"prompt_length={prompt_length} of prefix must be even: half of the "
                "vectors are keys, half values."
            )
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

    def forward(self):
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
        Fresh tokens at every layer, in the place of the last layer's; otherwise
        only at the input of the first.
    start : str
        silence, random (normal), or uniform (Xavier's, of a patch and a token).
    layers : list of int or None
        Restrict the method to these layers.
    parts : list of str or None
        Restrict it to the encoder or the decoder.
    **knobs
        For `Prompt`.
    """

    def __init__(self, deep=True, start="silence", layers=None, parts=None, **knobs):
        super().__init__(layers, parts)
        self.deep, self.start = deep, one_of("start", start, STARTS)
        self.prompt_knobs = knobs

    def attach(self, model):
        silence = model.silent_inputs() if self.start == "silence" else None
        layers = self.chosen_layers(model)
        for layer in layers if self.deep else layers[:1]:
            prompt = Prompt(layer.hidden_size, **self.prompt_knobs)
            if silence is not None:
                start_as(prompt.tokens, silence[layer.index])
            if self.start == "uniform":
                start_uniform(prompt.tokens, layer.hidden_size)
            self.hook(layer, "input", model.add(self, layer, "input", prompt))

    def hook(self, layer, site, module):
        layer.before(lambda tokens: with_prompts(tokens, module))


class PrefixKeysValues(Method):
    """Prefix tuning of every self-attention.

    Arguments
    ---------
    start : str
        silence, random (normal) or uniform (Xavier's, of a patch and a token); with a
        projection and in a decoder silence is random.
    layers : list of int or None
        Restrict the method to these layers.
    parts : list of str or None
        Restrict it to the encoder or the decoder.
    **knobs
        For `Prefix`.
    """

    def __init__(self, start="silence", layers=None, parts=None, **knobs):
        super().__init__(layers, parts)
        self.start, self.prefix_knobs = one_of("start", start, STARTS), knobs

    def attach(self, model):
        silence = model.silent_inputs() if self.start == "silence" else None
        for layer in self.chosen_layers(model):
            prefix = Prefix(layer.hidden_size, **self.prefix_knobs)
            direct = prefix.projection is None and not layer.is_decoder
            if silence is not None and direct:
                start_as(prefix.vectors, keys_and_values(layer, silence[layer.index]))
            if self.start == "uniform":
                start_uniform(prefix.vectors, layer.hidden_size)
            self.hook(layer, "mhsa", model.add(self, layer, "mhsa", prefix))

    def hook(self, layer, site, module):
        layer.sites[site].with_argument("prefix", module)


def with_prompts(tokens, prompt):
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
def keys_and_values(layer, inputs):
    """The keys and values of a layer's attention, `(tokens, 2 hidden)`."""
    if not layer.post_norm:
        inputs = layer.norms["mhsa"](inputs)
    return torch.cat([layer.projections[name](inputs) for name in ("k", "v")], -1)


@torch.no_grad()
def start_as(parameter, vectors):
    """Set a parameter's rows to vectors spread over those given, with some noise."""
    places = torch.linspace(0, len(vectors) - 1, len(parameter)).round().long()
    parameter.copy_(vectors[places] + NOISE * torch.randn_like(parameter))


def start_uniform(parameter, hidden_size):
    """Draw a parameter as visual prompt tuning does: uniform, by Xavier's bound for a
    patch of an image and a token."""
    bound = sqrt(6 / (PATCH + hidden_size))
    nn.init.uniform_(parameter, -bound, bound)


def positive(name, value):
    """Raise unless `value` is a whole number above 0."""
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name}={value} must be a whole number of at least 1.")
