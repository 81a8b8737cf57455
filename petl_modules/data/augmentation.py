"""What training does to waveforms whose labels hold for the whole clip."""

import torch
from torch import Tensor

from petl_modules.core.transfer import to_device

# The knobs that make a clip another one in every epoch, and their values for none
OFF = {
    "spec_augment_freq": 0,
    "spec_augment_time": 0,
    "speeds": None,
    "time_shift": False,
    "mixup": 0.0,
}


def rolled(wavs: Tensor, counts: Tensor) -> Tensor:
    """Clips whose end comes before their beginning, cut at random places.

    Arguments
    ---------
    wavs : torch.Tensor
        `(batch, samples)`, zero-padded on the right.
    counts : torch.Tensor
        `(batch,)`, valid samples, on the CPU.
    """
    places = torch.arange(wavs.shape[1], device=wavs.device)
    counts = counts.unsqueeze(1)
    begin = to_device((torch.rand(len(wavs), 1) * counts).long(), wavs.device)
    counts = to_device(counts, wavs.device)
    source = torch.where(places < counts, (places + begin) % counts, places)
    return wavs.gather(1, source)


def mixed(
    wavs: Tensor, counts: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every clip mixed with another of the batch (mixup, arXiv 1710.09412).

    Arguments
    ---------
    wavs, counts
        As of `rolled`.
    alpha : float
        Of the Beta distribution of the shares.

    Returns
    -------
    wavs : torch.Tensor
    counts : torch.Tensor
        Of the longer of the two clips.
    shares : torch.Tensor
        `(batch,)`, how much of a mixture is the clip itself.
    partners : torch.Tensor
        `(batch,)`, places of the other clips in the batch.
    """
    beta = torch.distributions.Beta(alpha, alpha, validate_args=False)
    shares = to_device(beta.sample((len(wavs),)), wavs.device)
    order = torch.randperm(len(wavs))
    partners = to_device(order, wavs.device)
    wavs = torch.lerp(wavs[partners], wavs, shares.unsqueeze(1))
    return wavs, counts.maximum(counts[order]), shares, partners
