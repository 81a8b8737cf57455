"""A sequence of tokens inside a Transformer."""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F


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
    layers : tuple of Tokens or None
        The input of the first layer and the output of every layer, the last one
        normalised, if they were asked for.
    """

    hidden: torch.Tensor
    mask: torch.Tensor
    special: int = 0
    prompts: int = 0
    bands: int = 1
    layers: tuple = field(default=None, repr=False)

    def rows(self, index):
        """The tokens of some clips of the batch."""
        layers = self.layers and tuple(layer.rows(index) for layer in self.layers)
        hidden, mask = self.hidden[index], self.mask[index]
        return replace(self, hidden=hidden, mask=mask, layers=layers)

    def standardised(self):
        """Every token with mean 0 and variance 1."""
        return replace(self, hidden=F.layer_norm(self.hidden, self.hidden.shape[-1:]))

    def in_time(self):
        """The sound's tokens by time, bands averaged: hidden states `(batch, steps,
        hidden)` and the numbers of valid steps `(batch,)`."""
        start = self.special + self.prompts
        hidden, counts = self.hidden[:, start:], self.mask[:, start:].sum(1)
        if self.bands == 1:
            return hidden, counts
        counts = counts // self.bands
        # a clip's bands follow one another without the batch's padding between them
        places = torch.arange(int(counts.max()), device=hidden.device)
        offsets = torch.arange(self.bands, device=hidden.device).unsqueeze(1)
        index = offsets * counts.view(-1, 1, 1) + places
        index = index.clamp(max=hidden.shape[1] - 1).flatten(1).unsqueeze(-1)
        bands = hidden.gather(1, index.expand(-1, -1, hidden.shape[-1]))
        return bands.unflatten(1, (self.bands, -1)).mean(1), counts
