"""Recordings: what is one, whether it is whole, and its sound at a model's rate."""

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal

import torch
from torchaudio.transforms import Resample

from petl_modules.data.media import AUDIO, MEDIA, Unreadable, decoded
from petl_modules.errors import UserError
from petl_modules.files import file_and_times

# Whole numbers of 32 bits that somebody wrote as floats are the loudest that is sound;
# squares of what is louder overflow
LOUDEST = 2.0**31
NEAR = 0.05  # seconds by which times in a table may be beyond a clip's end
Channel = Literal["mean", "first"]
LEAST_RATE, MOST_RATE = 100, 10_000_000  # Hz, from a heart's to ultrasound's
PIECE = 2**20  # samples that are resampled at a time, a minute at 16 kHz, at most


def is_audio(path: Path) -> bool:
    """Whether a file's name says that it is a recording, or has one in it."""
    return path.suffix.lower() in AUDIO | MEDIA and not path.name.startswith(".")


def read_clip(
    path: str | Path,
    sample_rate: int,
    seconds: float | None = None,
    channel: Channel = "mean",
) -> torch.Tensor:
    """The sound of one clip, mono.

    Arguments
    ---------
    path : str or Path
    sample_rate : int
        Hz, to which it is resampled.
    seconds : float or None
        Of its beginning that are wanted; no more is decoded.
    channel : str
        The mean of its channels, or the first alone.

    Returns
    -------
    torch.Tensor
        `(samples,)`, float32.

    Raises
    ------
    UserError
        If the file cannot be read, is empty, or holds what is no sound.
    """
    most = None if seconds is None else round(seconds * sample_rate)
    clip = bytearray()  # grows in place, where joined pieces would be there twice
    for piece in resampled(mono(path, channel), sample_rate, most or PIECE):
        clip += memoryview(piece.contiguous().numpy())
        if most is not None and len(clip) >= most * piece.element_size():
            break
    found = torch.frombuffer(clip, dtype=torch.float32)
    return found if most is None or len(found) <= most else found[:most].clone()


def read_pieces(path: str | Path, sample_rate: int) -> Iterator[torch.Tensor]:
    """The sound of a clip of any length, mixed to mono, in pieces `(samples,)` that
    follow one another: of about a minute at most, so that memory is bounded.

    Arguments
    ---------
    path : str or Path
    sample_rate : int
        Hz, to which it is resampled.

    Raises
    ------
    UserError
        As of `read_clip`.
    """
    for piece in resampled(mono(path), sample_rate, PIECE):
        yield from piece.split(PIECE)


def duration(path: str | Path) -> float:
    """Seconds of a clip, which is read to its end, since a header says little about
    what follows; raises what `read_clip` raises."""
    file, start, end = file_and_times(path)
    seconds = sum(len(block) / rate for block, rate in mono(path))
    if end is not None and start + seconds < end - NEAR:
        raise UserError(
            f"The clip {file} ends at {start + seconds:.2f} s, before the {end:g} s to "
            "which a part of it is wanted."
        )
    return round(seconds, 4)


# Helpers


def mono(
    path: str | Path, channel: Channel = "mean"
) -> Iterator[tuple[torch.Tensor, int]]:
    """A clip's blocks, `(samples,)`, and their rate in Hz; one or more."""
    file, start, end = file_and_times(path)
    if not Path(file).is_file():
        raise UserError(f"The clip {file} is missing.")
    empty = True
    try:
        for block, rate in decoded(file, start, end):
            if not block.isfinite().all():
                raise UserError(
                    f"The clip {path} holds values that are no numbers (NaN)."
                )
            if (loudest := float(block.abs().max())) > LOUDEST:
                raise UserError(
                    f"The clip {path} holds the value {loudest:.1e}, where sound is "
                    "within 1 and -1."
                )
            if not LEAST_RATE <= rate <= MOST_RATE:
                raise UserError(
                    f"The clip {file} says that it has {rate} samples a second, where "
                    f"sound has {LEAST_RATE} to {MOST_RATE}."
                )
            empty = False
            yield block[0] if channel == "first" else block.mean(0), rate
    except Unreadable as error:
        raise UserError(
            f"The clip {path} cannot be read: it is damaged or no audio ({error})."
        ) from None
    if empty:
        within = "" if end is None and not start else f" from {start:g} s on"
        raise UserError(f"The clip {file} is empty: it has no samples{within}.")


def resampled(
    blocks: Iterator[tuple[torch.Tensor, int]], target: int, wanted: int
) -> Iterator[torch.Tensor]:
    """Blocks at another rate, as if all of one rate had been resampled at once.

    A piece of the sound, of about `wanted` samples, is resampled with as much before
    and after it as the filter reads, so that the memory that a clip takes is that of
    its pieces.
    """
    for rate, alike in groupby(blocks, itemgetter(1)):
        sound = (block for block, _ in alike)
        if rate == target:
            yield from sound
            continue
        transform = resampler(rate, target)
        reach, step = reach_of(transform), step_of(transform)
        piece = min(PIECE, math.ceil(wanted * rate / target)) + 3 * reach
        waiting, count, before = [], 0, 0
        for block in sound:
            waiting.append(block)
            count += len(block)
            while count > piece:
                whole = torch.cat(waiting)
                cut = (len(whole) - reach) // step * step
                begin, end = samples(before, transform), samples(cut, transform)
                yield transform(whole)[begin:end]
                waiting, before = [whole[cut - reach :].clone()], reach
                count = len(waiting[0])
        yield transform(torch.cat(waiting))[samples(before, transform) :]


@cache
def resampler(rate: int, target: int) -> Resample:
    """The resampling filter for two rates, made once.

    The filter grows with the product of the reduced rates: from 22,051 to 16,000 Hz
    it would take gigabytes. A ratio that is right to some millionths will do there;
    for the usual rates it is exact.
    """
    finest = min(1000, max(1, 4000 * target // rate))
    ratio = Fraction(rate, target).limit_denominator(finest)
    return Resample(ratio.numerator, ratio.denominator)


def step_of(transform: Resample) -> int:
    """Samples after which the filter starts again."""
    return transform.orig_freq // transform.gcd


def reach_of(transform: Resample) -> int:
    """Steps of samples that hold all that the filter reads to one side."""
    return math.ceil(transform.width / step_of(transform) + 1) * step_of(transform)


def samples(count: int, transform: Resample) -> int:
    """Samples that whole steps of samples become."""
    return count // step_of(transform) * (transform.new_freq // transform.gcd)
