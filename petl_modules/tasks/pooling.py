"""What heads read of every layer and of every step of time."""

import torch
from torch import Tensor, nn

from petl_modules.core.masking import valid
from petl_modules.core.transfer import to_device

ATTENTION = 128  # width of the attention that pools time


class LayerAdapter(nn.Sequential):
    """`LayerNorm(GELU(Linear(h)))` of one layer's tokens: an L-adapter (Inoue et al.,
    arXiv 2407.21066).

    Arguments
    ---------
    hidden_size, width : int
    """

    def __init__(self, hidden_size: int, width: int) -> None:
        linear, norm = nn.Linear(hidden_size, width), nn.LayerNorm(width)
        super().__init__(linear, nn.GELU(), norm)


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation over time, weighted by learned attention (Okabe et
    al., arXiv 1803.10963; over the layers of a Conformer: 2203.15249).

    Arguments
    ---------
    size : int
        Of a step.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hear, self.score = nn.Linear(size, ATTENTION), nn.Linear(ATTENTION, 1)

    def forward(self, steps: Tensor, counts: Tensor) -> Tensor:
        """`(batch, steps, size)` and valid steps `(batch,)` to `(batch, 2 size)`."""
        inside = valid(to_device(counts, steps.device), steps.shape[1]).unsqueeze(-1)
        scores = self.score(torch.tanh(self.hear(steps))).float()
        weights = scores.masked_fill(~inside, -torch.inf).softmax(1)
        mean = (steps * weights).sum(1)
        variance = ((steps - mean.unsqueeze(1)).square() * weights).sum(1)
        return torch.cat([mean, variance.clamp(min=1e-6).sqrt()], -1)
