"""What is heard of recordings: all of a clip, or its beginning, and then how much."""

from collections.abc import Sequence
from pathlib import Path

import torch

from petl_modules.backbones import Backbone
from petl_modules.data.reading import read_pieces
from petl_modules.errors import UserError
from petl_modules.use.loaded import Answer

SLIGHT = 0.1  # seconds, of which it need not be said that they were not heard


def hear(
    path: str | Path, backbone: Backbone, seconds: float | None = None
) -> tuple[torch.Tensor, Answer]:
    """A clip as an adapter hears it.

    Arguments
    ---------
    path : str or Path
    backbone : Backbone
        Whose sample rate the clip gets.
    seconds : float or None
        That the adapter hears at most; None for all of a clip.

    Returns
    -------
    torch.Tensor
        `(samples,)`
    dict
        duration and heard, in seconds, where only its beginning was heard.

    Raises
    ------
    UserError
        For a clip that cannot be read, or is longer than the backbone hears at once
        and may not be cut.
    """
    rate, most = backbone.sample_rate, backbone.capacity()
    limit = most if seconds is None else round(seconds * rate)
    clip, length = beginning(path, rate, limit)
    if len(clip) < length and seconds is None:
        raise UserError(
            f"The clip {path} is {length / rate:.1f} s long, more than the "
            f"{len(clip) / rate:.0f} s that {backbone.source} hears at once: give "
            "a window, as petl predict --window does, or cut it into parts."
        )
    return clip, unheard(len(clip), length, rate)


def hear_all(
    paths: Sequence[str | Path],
    backbone: Backbone,
    seconds: Sequence[float | None],
) -> list[tuple[torch.Tensor | None, Answer]]:
    """Clips as of `hear`, each with its own seconds; no clip and `{file, error}` for
    what cannot be read."""
    found: list[tuple[torch.Tensor | None, Answer]] = []
    for path, most in zip(paths, seconds, strict=True):
        try:
            found.append(hear(path, backbone, most))
        except UserError as error:
            found.append((None, {"file": str(path), "error": str(error)}))
    return found


def beginning(
    path: str | Path, rate: int, limit: int | None = None
) -> tuple[torch.Tensor, int]:
    """The first samples of a recording, and how many it has; no more than these are
    held.

    Arguments
    ---------
    path : str or Path
    rate : int
        Hz.
    limit : int or None
        Samples, None for all.
    """
    pieces, kept, length = [], 0, 0
    for piece in read_pieces(path, rate):
        if limit is None or kept < limit:
            pieces.append(piece if limit is None else piece[: limit - kept])
            kept += len(pieces[-1])
        length += len(piece)
    return torch.cat(pieces), length


def unheard(kept: int, length: int, rate: int) -> Answer:
    """duration and heard, in seconds, of so many samples of a recording; nothing if
    that is all of it."""
    if length - kept <= SLIGHT * rate:
        return {}
    return {"duration": round(length / rate, 3), "heard": round(kept / rate, 3)}
