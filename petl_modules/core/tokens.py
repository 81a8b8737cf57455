"""A sequence of tokens inside a Transformer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """A sequence inside the Transformer: `special` tokens of the backbone (CLS),
    then `prompts` learned tokens, then sound.

    Attributes
    ----------
    hidden : torch.Tensor
        `(batch, tokens, hidden)`.
    mask : torch.Tensor
        `(batch, tokens)`, True for valid tokens.
    special, prompts : int
        Number of leading tokens of each kind.
    bands : int
        Frequency bands that the sound's tokens have for each step of time, one band
        after the other; AST has several.
    lengths : tuple of int or None
        Steps of time that each clip has, where that is known without asking the device;
        the longest clip then fills the batch, as it does where it is None.
    layers : tuple of Tokens or None
        The input of the first layer and the output of every layer, the last one
        normalised, if they were asked for.
    """

    hidden: torch.Tensor
    mask: torch.Tensor
    special: int = 0
    prompts: int = 0
    bands: int = 1
    lengths: tuple | None = None
    layers: tuple | None = field(default=None, repr=False)

    def rows(self, index: Sequence[int]) -> "Tokens":
        """The tokens of some clips of the batch."""
        layers = self.layers and tuple(layer.rows(index) for layer in self.layers)
        hidden, mask = self.hidden[index], self.mask[index]
        lengths = self.lengths and tuple(self.lengths[i] for i in index)
        return replace(self, hidden=hidden, mask=mask, lengths=lengths, layers=layers)

    def standardised(self) -> "Tokens":
        """Every token with mean 0 and variance 1."""
        return replace(self, hidden=F.layer_norm(self.hidden, self.hidden.shape[-1:]))

    def in_time(self) -> tuple[Tensor, Tensor]:
        """The sound's tokens by time, bands averaged: hidden states `(batch, steps,
        hidden)` and the numbers of valid steps `(batch,)`, on the CPU where `lengths`
        says them."""
        start = self.special + self.prompts
        hidden, counts = self.hidden[:, start:], self.mask[:, start:].sum(1)
        if self.bands > 1:
            counts = counts // self.bands
            # a clip's bands follow one another without padding between them
            places = torch.arange(hidden.shape[1] // self.bands, device=hidden.device)
            offsets = torch.arange(self.bands, device=hidden.device).unsqueeze(1)
            index = offsets * counts.view(-1, 1, 1) + places
            index = index.clamp(max=hidden.shape[1] - 1).flatten(1).unsqueeze(-1)
            bands = hidden.gather(1, index.expand(-1, -1, hidden.shape[-1]))
            hidden = bands.unflatten(1, (self.bands, -1)).mean(1)
        if self.lengths is not None:
            counts = torch.tensor(self.lengths)
        return hidden, counts
