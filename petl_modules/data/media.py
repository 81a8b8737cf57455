"""Sound files, block by block, as soundfile or FFmpeg decodes them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO

import soundfile
import torch

from petl_modules.data.ogg import links

# of files that soundfile reads
AUDIO = {
    ".wav",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".aif",
    ".aiff",
    ".aifc",
    ".au",
    ".snd",
    ".caf",
    ".w64",
    ".rf64",
    ".sph",
    ".wave",
    ".bwf",
    ".voc",
    ".nist",
}
# and of those that only FFmpeg does, or does better: an mp3's rate may change midway
MEDIA = {
    ".mp3",
    ".mp2",
    ".mpga",
    ".mp4",
    ".m4a",
    ".m4b",
    ".m4v",
    ".mov",
    ".mkv",
    ".mka",
    ".webm",
    ".avi",
    ".aac",
    ".ac3",
    ".amr",
    ".3gp",
    ".ape",
    ".wma",
    ".wmv",
    ".wv",
    ".tta",
    ".mpg",
    ".mpeg",
    ".3g2",
    ".awb",
    ".asf",
    ".ogv",
    ".flv",
    ".ts",
}
RUN_UP = 1.0  # seconds before a part that are decoded too: a frame may need others
BLOCK = 2**18  # samples of each channel that are decoded at a time


class Unreadable(Exception):
    """What a decoder says of a file that it does not read."""


def decoded(
    path: str | Path, start: float = 0.0, end: float | None = None
) -> Iterator[tuple[torch.Tensor, int]]:
    """The first sound track of a file, or a part of it.

    A name's suffix says who reads the file first. What that one cannot open, such as a
    .wav that is something else, or finds empty, such as a .wav whose writer was killed
    before it put down the size, the other may read.

    Arguments
    ---------
    path : str or Path
    start, end : float
        Seconds between which it is wanted; little else is decoded.

    Yields
    ------
    block : torch.Tensor
        `(channels, samples)`, float32.
    rate : int
        Hz, which may be another after some blocks.

    Raises
    ------
    Unreadable
        If neither opens it, or it ends in damage.
    """
    readers = [soundfile_blocks, ffmpeg_blocks]
    if Path(path).suffix.lower() in MEDIA:
        readers.reverse()
    complaints = []
    for reader in readers:
        blocks = cut(reader(os.fspath(path), start), end)
        try:
            first = next(blocks, None)
        except Unreadable as complaint:
            complaints.append(complaint)
            continue
        if first is not None:
            yield first
            yield from blocks
            return
    if len(complaints) == len(readers):
        raise complaints[0]


def seconds_of(path: str | Path) -> float | None:
    """Seconds of a sound file as its header says, or None where nothing says it."""
    with suppress(OSError, RuntimeError):
        return soundfile.info(os.fsencode(path)).duration
    import av

    with (
        suppress(av.FFmpegError, OSError, ValueError),
        opened(str(path)) as file,
        av.open(file, options={"protocol_whitelist": "file"}) as container,
    ):
        return container.duration and container.duration / av.time_base
    return None


def cut(
    blocks: Iterator[tuple[torch.Tensor, int, int]], end: float | None
) -> Iterator[tuple[torch.Tensor, int]]:
    """Blocks up to a time, of blocks with their rate and their first sample's
    number."""
    for block, rate, first in blocks:
        if end is None:
            yield block, rate
            continue
        left = round(end * rate) - first
        if left > 0:
            yield block[:, :left], rate
        if left <= block.shape[1]:
            return


def soundfile_blocks(
    path: str, start: float
) -> Iterator[tuple[torch.Tensor, int, int]]:
    """What libsndfile decodes from a time on, as `cut` takes it."""
    try:
        gone = 0.0  # seconds of the streams before
        for source in sources(path):
            with soundfile.SoundFile(source) as file:
                rate = file.samplerate
                begin = round(gone * rate)
                place = min(max(0, round(start * rate) - begin), file.frames)
                if place:
                    file.seek(place)
                while len(block := file.read(BLOCK, "float32", always_2d=True)):
                    yield torch.from_numpy(block.T), rate, begin + place
                    place += len(block)
                gone += file.frames / rate
    # the type where a name ends in .raw, for which soundfile asks for all that it is
    except (OSError, RuntimeError, TypeError) as error:
        raise Unreadable(str(error).split(":")[-1].strip(" .")) from None


def sources(path: str) -> Iterator[bytes | BytesIO]:
    """What libsndfile opens for a file: it itself, by name, or the links of a chain one
    by one, of which it would read the first alone."""
    with open(path, "rb") as file:
        found = links(file)
        if len(found) == 1:
            yield os.fsencode(path)  # names that are no UTF-8 are bytes to it
            return
        for start, end in found:
            file.seek(start)
            yield BytesIO(file.read(end - start))


def ffmpeg_blocks(path: str, start: float) -> Iterator[tuple[torch.Tensor, int, int]]:
    """What FFmpeg decodes from a time on, as `cut` takes it; all at the rate with which
    the sound begins."""
    import av  # loads FFmpeg's libraries, which other data sets have no need of

    try:
        # a file that is a list of addresses is followed to none of them
        options = {"protocol_whitelist": "file"}
        with opened(path) as file, av.open(file, options=options) as container:
            if not container.streams.audio:
                raise Unreadable("it has no sound track")
            stream = container.streams.audio[0]
            if start > RUN_UP:
                sought = (stream.start_time or 0) + (start - RUN_UP) / stream.time_base
                container.seek(int(sought), stream=stream)
            yield from after(decoded_frames(container, stream), start)
    except av.FFmpegError as error:
        raise Unreadable(error.strerror) from None
    except (OSError, ValueError) as error:
        raise Unreadable(str(error).strip(" .")) from None


def after(
    blocks: Iterator[tuple[torch.Tensor, int, float]], start: float
) -> Iterator[tuple[torch.Tensor, int, int]]:
    """Blocks from a time on, with their first sample's number, of blocks with their
    rate, the first of them with the time at which it begins."""
    place = None
    for block, rate, begins in blocks:
        place = round(begins * rate) if place is None else place
        early = min(max(0, round(start * rate) - place), block.shape[1])
        if early < block.shape[1]:
            yield block[:, early:], rate, place + early
        place += block.shape[1]


def decoded_frames(
    container: Any, stream: Any
) -> Iterator[tuple[torch.Tensor, int, float]]:
    """The sound from where a container stands, with its rate and the second at which a
    frame begins."""
    import av

    plain, kind, rate, begins = None, None, None, 0.0
    for frame in container.decode(stream):
        if kind != (frame.sample_rate, frame.layout.name, frame.format.name):
            if plain is not None:
                yield from arrays(plain.resample(None), rate, begins)
            kind = (frame.sample_rate, frame.layout.name, frame.format.name)
            if rate is None and frame.pts is not None:
                since = frame.pts - (stream.start_time or 0)
                begins = float(since * frame.time_base)
            rate = rate or frame.sample_rate
            # the channels stay as they are
            plain = av.AudioResampler("fltp", frame.layout, rate)
        yield from arrays(plain.resample(frame), rate, begins)
    if plain is not None:
        yield from arrays(plain.resample(None), rate, begins)


class Stream(FileIO):
    """A file that answers an impossible seek with a number, as FFmpeg's own do: what
    it would raise, PyAV prints as a traceback and drops."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError:
            return -1


@contextmanager
def opened(path: str) -> Iterator[str | BinaryIO]:
    """What PyAV opens: a path, or a stream where the path is not the UTF-8 it needs."""
    try:
        path.encode()
    except UnicodeEncodeError:
        with Stream(path) as stream:
            yield stream
    else:
        yield path


def arrays(
    frames: list, rate: int, begins: float
) -> Iterator[tuple[torch.Tensor, int, float]]:
    """FFmpeg's frames of planar floats as blocks of `decoded_frames`."""
    for frame in frames:
        if frame is not None and frame.samples:
            yield torch.from_numpy(frame.to_ndarray()), rate, begins
