"""Which frames of a recording speak which symbol of its text."""

import torch
from speechbrain.lobes.models.FastSpeech2 import maximum_path_numpy
from torch import Tensor


def best_path(alignment: Tensor, mask: Tensor, frames: Tensor) -> Tensor:
    """The monotonic path of the highest probability, `(batch, frames, symbols)`, which
    gives every symbol a frame."""
    both = mask.unsqueeze(2) & frames.unsqueeze(1)
    scores = alignment.detach().mT.masked_fill(~both, 0.0)
    return maximum_path_numpy(scores.contiguous(), both.float()).mT


def diagonal_prior(frames: Tensor, symbols: Tensor, like: Tensor) -> Tensor:
    """Log-probabilities of the beta-binomial prior of Badlani et al. (arXiv
    2108.10447), shaped as `like`, `(batch, frames, symbols)`: frames early in a clip
    belong to symbols early in its text."""
    t = torch.arange(like.shape[1], device=like.device).view(1, -1, 1)
    k = torch.arange(like.shape[2], device=like.device).view(1, 1, -1)
    n = (symbols - 1).view(-1, 1, 1)
    rest = (n - k).clamp(min=0)
    a = (t + 1).float()
    b = (frames.view(-1, 1, 1) - t).clamp(min=1).float()

    def log_beta(x: Tensor, y: Tensor) -> Tensor:
        return torch.lgamma(x) + torch.lgamma(y) - torch.lgamma(x + y)

    log_choose = -torch.log(n + 1.0) - log_beta(rest + 1.0, k + 1.0)
    return log_choose + log_beta(k + a, rest + b) - log_beta(a, b)
