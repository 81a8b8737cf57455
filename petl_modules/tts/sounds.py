"""Sounds as files."""

from pathlib import Path

from speechbrain.dataio import audio_io
from torch import Tensor

from petl_modules.files import whole


def write_sound(path: Path, wav: Tensor, sample_rate: int) -> None:
    """Write a waveform `(samples,)`, whole or not at all, in the format that the file's
    name ends in."""
    with whole(path) as partial:
        audio_io.save(str(partial), wav.unsqueeze(0), sample_rate)
