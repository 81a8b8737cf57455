"""Clips of a batch in training rolled around, and mixed with one another."""

from collections.abc import Callable

import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from torch import Tensor

from petl_modules.data.augmentation import mixed, rolled
from petl_modules.tasks.base import lengths


def roll_and_mix(
    batch: PaddedBatch, time_shift: bool, mixup: float, targets: Callable[[], Tensor]
) -> Tensor | None:
    """Change a batch's sound, in place.

    Arguments
    ---------
    batch : PaddedBatch
    time_shift : bool
        Whether clips are rolled around by a random time.
    mixup : float
        The parameter of the Beta distribution by which clips are mixed; 0 for none.
    targets : callable
        Gives what the clips' targets are, `(batch, classes)`.

    Returns
    -------
    torch.Tensor or None
        The targets, mixed as the clips are; None where these are not.
    """
    if not (time_shift or mixup):
        return None
    wavs, counts, told = batch.sig.data, lengths(batch.sig), None
    if time_shift:
        wavs = rolled(wavs, counts)
    if mixup:
        wavs, counts, shares, partners = mixed(wavs, counts, mixup)
        own = targets()
        told = torch.lerp(own[partners], own, shares.unsqueeze(1))
    batch.sig = PaddedData(wavs, counts / wavs.shape[1])
    return told
