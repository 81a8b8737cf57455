"""Long recordings by windows: answers with their times, in bounded memory."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch

from petl_modules.data.reading import read_pieces
from petl_modules.errors import UserError
from petl_modules.kinds import Range, Seconds, check
from petl_modules.use.inference import Adapters
from petl_modules.use.loaded import Answer

# Windows that hear each moment, where labels are wanted and no hop is given
OVERLAP = 2
QUIET = 0.2  # seconds of a silence between words
Hop = Annotated[float, Range(0.01, 86_400)]  # seconds


def answer_windows(
    adapters: Adapters,
    path: str | Path,
    window: float,
    hop: float | None = None,
    adapter: str | None = None,
    batch_size: int = 16,
    most: float | None = None,
) -> list[Answer]:
    """What is heard in each part of a recording of any length.

    Labels are smoothed: each stretch of `hop` seconds has the mean of the probabilities
    of all windows that hear it, and stretches of one label that follow one another are
    one answer. Texts are those of segments that follow one another, each of up to
    `window` seconds and ended where it is quietest, so that words stay whole.

    Arguments
    ---------
    adapters : Adapters
    path : str or Path
    window : float
        Seconds that are heard at once, of text at most.
    hop : float or None
        Seconds from one window to the next, for labels; None for half a window.
    adapter : str or None
        Whose answers; None for the one in use.
    batch_size : int
        How many windows are computed together.
    most : float or None
        Seconds of the recording that are heard at most.

    Returns
    -------
    list of dict
        file, start and end in seconds, and label, probability and probabilities, or
        text.

    Raises
    ------
    UserError
        For a window that is longer than the adapter hears, a hop that leaves gaps, or a
        file that cannot be read.
    """
    name = adapters.in_use if adapter is None else adapter
    if name is None:
        raise UserError("There is no adapter to answer.")
    text = adapters.gives(name) == "text"
    if hop is None:
        hop = window if text else window / OVERLAP
    refuse_lengths(adapters, name, window, hop, text)
    rate = adapters.backbone.sample_rate
    size, step = round(window * rate), max(1, round(hop * rate))
    spans, outputs = [], []
    pieces = read_pieces(path, rate)
    if most is not None:
        pieces = beginning(pieces, round(most * rate))
    found = segments(pieces, size, rate) if text else windows(pieces, size, step)
    for batch in batched(found, batch_size):
        wavs = torch.nn.utils.rnn.pad_sequence([clip for _, clip in batch], True)
        counts = torch.tensor([len(clip) for _, clip in batch])
        ask = adapters.transcribe_batch if text else adapters.classify_batch
        outputs += ask(wavs, counts / wavs.shape[1], [name] * len(batch))
        spans += [(start, start + len(clip)) for start, clip in batch]
    if text:
        answers = [
            {"start": start, "end": end, "text": said}
            for (start, end), said in zip(spans, outputs, strict=True)
        ]
    else:
        answers = smoothed(spans, outputs, partial(adapters.told, name), step)
    for answer in answers:
        answer["start"] = round(answer["start"] / rate, 3)
        answer["end"] = round(answer["end"] / rate, 3)
    return [{"file": str(path), **answer} for answer in answers]


# Helpers


def refuse_lengths(
    adapters: Adapters, name: str, window: float, hop: float, text: bool
) -> None:
    """Raise a UserError for windows that cannot be heard, or that leave gaps."""
    check(f"window={window}", window, Seconds)
    check(f"hop={hop}", hop, Hop)
    samples, rate = adapters.backbone.capacity(), adapters.backbone.sample_rate
    longest = [adapters.longest(name), None if samples is None else samples / rate]
    most = min((seconds for seconds in longest if seconds is not None), default=None)
    if most is not None and window > most:
        raise UserError(
            f"A window of {window} s is longer than the {most:g} s that {name} hears."
        )
    if hop > window:
        raise UserError(
            f"A hop of {hop} s is longer than the window of {window} s: it would leave "
            "gaps."
        )
    if text and hop != window:
        raise UserError(
            f"{name} gives text, of which windows that overlap would repeat words: "
            "give no hop."
        )


def beginning(pieces: Iterator[torch.Tensor], most: int) -> Iterator[torch.Tensor]:
    """The first `most` samples of sound that comes in pieces."""
    for piece in pieces:
        yield piece[:most]
        most -= len(piece)
        if most <= 0:
            return


def segments(
    pieces: Iterator[torch.Tensor], size: int, rate: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Stretches of sound that comes in pieces, one after another, each with its first
    sample's number: of up to `size` samples, ended at the quietest moment of their
    second half.

    Arguments
    ---------
    pieces : iterator of torch.Tensor
        Each `(samples,)`.
    size : int
        Samples, at most.
    rate : int
        Hz.
    """
    held, first = torch.zeros(0), 0
    for piece in pieces:
        held = torch.cat([held, piece])
        while len(held) > size:
            cut = quietest(held[:size], max(1, round(QUIET * rate)))
            yield first, held[:cut].clone()
            held, first = held[cut:].clone(), first + cut
    if len(held):
        yield first, held


def quietest(sound: torch.Tensor, frame: int) -> int:
    """The middle of the frame of least power in the second half of `(samples,)`."""
    begin, step = len(sound) // 2, 1 + frame // 4
    powers = sound[begin:].square()
    powers = powers.unfold(0, min(frame, len(powers)), step).mean(-1)
    return begin + int(powers.argmin()) * step + frame // 2


def windows(
    pieces: Iterator[torch.Tensor], size: int, step: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Windows over sound that comes in pieces, each with its first sample's number.

    The last one ends where the sound does, and starts earlier than its turn.

    Arguments
    ---------
    pieces : iterator of torch.Tensor
        Each `(samples,)`.
    size, step : int
        Samples of a window, and from one to the next.
    """
    held, first, turn = torch.zeros(0), 0, 0
    for piece in pieces:
        held = torch.cat([held, piece])
        while first + len(held) >= turn + size:
            start = turn - first
            yield turn, held[start : start + size].clone()
            turn += step
        # what the next window and the last one may need
        keep = min(turn - first, len(held) - size)
        if keep > 0:
            held, first = held[keep:], first + keep
    end = first + len(held)
    if end > turn - step + size or turn == 0:
        start = max(0, end - size)
        yield start, held[start - first :]


def smoothed(
    spans: list[tuple[int, int]],
    rows: list[torch.Tensor],
    told: Callable[[torch.Tensor], Answer],
    step: int,
) -> list[dict[str, Any]]:
    """One answer for each stretch of one label, or of the same labels.

    Arguments
    ---------
    spans : list of tuple
        First and last sample of each window.
    rows : list of torch.Tensor
        Its probabilities `(classes,)`.
    told : callable
        What is told of probabilities, with a label or labels.
    step : int
        Samples of a stretch.
    """
    end = spans[-1][1]
    starts = list(range(0, end, step))
    middles = (torch.tensor(starts) + step // 2).clamp(max=end - 1)
    sums, heard = torch.zeros(len(starts), len(rows[0])), torch.zeros(len(starts), 1)
    for (first, last), row in zip(spans, rows, strict=True):
        inside = (middles >= first) & (middles < last)
        sums[inside] += row
        heard[inside] += 1
    means = sums / heard
    said = [of_cell(told(mean)) for mean in means]
    answers: list[dict[str, Any]] = []
    cells: list[int] = []
    for cell, labels in enumerate(said):
        cells.append(cell)
        if cell + 1 == len(said) or said[cell + 1] != labels:
            answer = told(means[cells].mean(0))
            times = {
                "start": starts[cells[0]],
                "end": min(starts[cells[-1]] + step, end),
            }
            answers.append({**times, **answer})
            cells = []
    return answers


def of_cell(answer: Answer) -> Any:
    """The label of an answer, or its labels whatever their order."""
    return answer["label"] if "label" in answer else sorted(answer["labels"])


def batched(items: Iterator, size: int) -> Iterator[list]:
    """Lists of up to `size` items."""
    while batch := list(islice(items, size)):
        yield batch
