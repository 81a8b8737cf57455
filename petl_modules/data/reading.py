"""Recordings: what is one, how it is read, and at which rate."""

import os
from fractions import Fraction
from functools import cache
from pathlib import Path

import torch
from speechbrain.dataio import audio_io
from torchaudio.transforms import Resample

from petl_modules.data.media import SUFFIXES, read_media
from petl_modules.errors import UserError

# of files that soundfile reads
AUDIO = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"}


def read_clip(path, sample_rate):
    """One clip, `(samples,)` float32, mono, at `sample_rate` Hz.

    Raises
    ------
    UserError
        If the file cannot be read, is empty, or holds NaN.
    """
    audio, rate = decode(path)
    return audio if rate == sample_rate else resampler(rate, sample_rate)(audio)


def is_audio(path):
    """Whether a file's name says that it is a recording, or has one in it."""
    return path.suffix.lower() in AUDIO | SUFFIXES and not path.name.startswith(".")


def duration(path):
    """Seconds of a clip that has been read to its end."""
    stat = os.stat(path) if Path(path).is_file() else None
    return seconds_of(str(path), stat and (stat.st_size, stat.st_mtime_ns))


@cache
def seconds_of(path, version):
    """The same, remembered, so that folds of one process check a file once."""
    del version  # a changed file is another one
    audio, rate = decode(path)
    return round(len(audio) / rate, 4)


def decode(path):
    """A clip, `(samples,)`, mixed to mono, and its rate in Hz."""
    if not Path(path).is_file():
        raise UserError(f"The clip {path} is missing.")
    try:
        if Path(path).suffix.lower() in SUFFIXES:
            audio, rate = read_media(path)
        else:
            audio, rate = audio_io.load(str(path), dtype=torch.float32)
    except RuntimeError as error:
        reason = str(error).split(":")[-1].strip(" .")
        raise UserError(
            f"The clip {path} cannot be read: it is damaged or no audio ({reason})."
        ) from None
    if audio.numel() == 0:
        raise UserError(f"The clip {path} is empty: it has no samples.")
    if not audio.isfinite().all():
        raise UserError(f"The clip {path} holds values that are no numbers (NaN).")
    return audio.mean(0), rate


@cache
def resampler(rate, target):
    """The resampling filter for two rates, made once.

    The filter grows with the product of the reduced rates: from 22,051 to 16,000 Hz
    it would take gigabytes. A ratio that is right to some millionths will do there;
    for the usual rates it is exact.
    """
    ratio = Fraction(rate, target).limit_denominator(1000)
    return Resample(ratio.numerator, ratio.denominator)
