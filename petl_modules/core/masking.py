"""Valid places of padded batches."""

import torch
from torch import Tensor


def sample_counts(wavs: Tensor, wav_lens: Tensor | None) -> Tensor:
    """Relative lengths to numbers of samples, `(batch,)`.

    On the CPU where lengths are given: shapes depend on them, and to ask a GPU for them
    would wait for all that it has to do. Without lengths, beside `wavs`.
    """
    samples = wavs.shape[1]
    if wav_lens is None:
        return wavs.new_full((wavs.shape[0],), samples, dtype=torch.long)
    return (wav_lens.cpu() * samples).round().long().clamp(1, samples)


def valid(counts: Tensor, length: int) -> Tensor:
    """Mask `(batch, length)` that is True for the first `counts` places."""
    return torch.arange(length, device=counts.device) < counts.unsqueeze(1)


def masked_mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over the valid time steps: `(batch, time, size)` to `(batch, size)`."""
    if mask is None:
        return x.mean(1)
    weights = mask.unsqueeze(-1).to(x.dtype)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)
