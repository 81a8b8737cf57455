"""What a synthesiser is shown, and what it says: batches of speech."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Target:
    """What a batch sounds like.

    Attributes
    ----------
    mel : torch.Tensor
        `(batch, frames, n_mels)`, log-mel.
    counts : torch.Tensor
        `(batch,)`, valid frames.
    pitch, energy : torch.Tensor
        `(batch, frames)`.
    durations : torch.Tensor or None
        `(batch, symbols)`, frames, where they were found before.
    """

    mel: torch.Tensor
    counts: torch.Tensor
    pitch: torch.Tensor
    energy: torch.Tensor
    durations: torch.Tensor | None = None


@dataclass(frozen=True)
class Speech:
    """What a batch of texts becomes.

    Attributes
    ----------
    mel, coarse_mel : torch.Tensor
        `(batch, frames, n_mels)`: log-mel, after and before the last convolutions.
    counts : torch.Tensor
        `(batch,)`, valid frames.
    mask : torch.Tensor
        `(batch, symbols)`, True for valid symbols.
    durations : torch.Tensor
        `(batch, symbols)`, frames: predicted, or aligned with the target.
    log_durations, pitch, energy : torch.Tensor
        `(batch, symbols)`: predictions; of durations `ln(1 + frames)`.
    target_pitch, target_energy : torch.Tensor or None
        `(batch, symbols)`: means of the target over each symbol.
    alignment : torch.Tensor or None
        `(batch, frames, symbols)`: log-probabilities of each frame's symbol.
    path : torch.Tensor or None
        `(batch, frames, symbols)`: the best monotonic one, of zeros and ones.
    """

    mel: torch.Tensor
    coarse_mel: torch.Tensor
    counts: torch.Tensor
    mask: torch.Tensor
    durations: torch.Tensor
    log_durations: torch.Tensor
    pitch: torch.Tensor
    energy: torch.Tensor
    target_pitch: torch.Tensor | None = None
    target_energy: torch.Tensor | None = None
    alignment: torch.Tensor | None = None
    path: torch.Tensor | None = None
