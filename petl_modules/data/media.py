"""Sound files, block by block, as soundfile or FFmpeg decodes them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import soundfile
import torch

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
}
# and of those that only FFmpeg does, or does better: an mp3's rate may change midway
MEDIA = {
    ".mp3",
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
    ".flv",
    ".ts",
}
BLOCK = 2**18  # samples of each channel that are decoded at a time


class Unreadable(Exception):
    """What a decoder says of a file that it does not read."""


def decoded(path: str | Path) -> Iterator[tuple[torch.Tensor, int]]:
    """The first sound track of a file.

    A name's suffix says who reads the file first. What that one cannot open, such as a
    .wav that is something else, the other may.

    Arguments
    ---------
    path : str or Path

    Yields
    ------
    block : torch.Tensor
        `(channels, samples)`, float32.
    rate : int
        Hz; the same for all blocks.

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
        blocks = reader(os.fspath(path))
        try:
            first = next(blocks, None)
        except Unreadable as complaint:
            complaints.append(complaint)
            continue
        if first is not None:
            yield first
            yield from blocks
        return
    raise complaints[0]


def soundfile_blocks(path: str) -> Iterator[tuple[torch.Tensor, int]]:
    """What libsndfile decodes; arguments and values of `decoded`."""
    try:
        # names that are no UTF-8 are bytes to it
        with soundfile.SoundFile(os.fsencode(path)) as file:
            while len(block := file.read(BLOCK, "float32", always_2d=True)):
                yield torch.from_numpy(block.T), file.samplerate
    except (OSError, RuntimeError) as error:
        raise Unreadable(str(error).split(":")[-1].strip(" .")) from None


def ffmpeg_blocks(path: str) -> Iterator[tuple[torch.Tensor, int]]:
    """What FFmpeg decodes, all at the rate with which the sound begins; arguments and
    values of `decoded`."""
    import av  # loads FFmpeg's libraries, which other data sets have no need of

    try:
        # a file that is a list of addresses is followed to none of them
        options = {"protocol_whitelist": "file"}
        with opened(path) as file, av.open(file, options=options) as container:
            if not container.streams.audio:
                raise Unreadable("it has no sound track")
            plain, kind, rate = None, None, None
            for frame in container.decode(container.streams.audio[0]):
                if kind != (frame.sample_rate, frame.layout.name, frame.format.name):
                    if plain is not None:
                        yield from arrays(plain.resample(None), rate)
                    kind = (frame.sample_rate, frame.layout.name, frame.format.name)
                    rate = rate or frame.sample_rate
                    # the channels stay as they are
                    plain = av.AudioResampler("fltp", frame.layout, rate)
                yield from arrays(plain.resample(frame), rate)
            if plain is not None:
                yield from arrays(plain.resample(None), rate)
    except av.FFmpegError as error:
        raise Unreadable(error.strerror) from None
    except (OSError, ValueError) as error:
        raise Unreadable(str(error).strip(" .")) from None


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


def arrays(frames: list, rate: int) -> Iterator[tuple[torch.Tensor, int]]:
    """FFmpeg's frames of planar floats as blocks of `decoded`."""
    for frame in frames:
        if frame is not None and frame.samples:
            yield torch.from_numpy(frame.to_ndarray()), rate
