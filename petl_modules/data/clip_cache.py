"""Decoded clips: in memory, and in a file what memory has no room for.

Decoding and resampling cost milliseconds a clip, which would come again every epoch,
and in every run.
"""

import logging
import os
import secrets
import shutil
import threading
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from petl_modules.data.reading import Channel, read_clip
from petl_modules.files import digest, listing

logger = logging.getLogger(__name__)

SOUND, INDEX = ".f32", ".index"
LEAST_FREE = 0.05  # of a disk, which is left to others


class Clips:
    """Clips at one rate, each decoded once; threads may ask side by side.

    Arguments
    ---------
    sample_rate : int
        Hz; clips are resampled to it and mixed to mono.
    seconds : float or None
        After which clips are cut; no more is decoded.
    mib : float
        Of clips that are kept in memory.
    folder : Path or None
        Where the others are kept, for later runs too; None decodes them each time.
    folder_mib : float
        Of clips that are written there.
    channel : str
        As of `read_clip`.
    """

    def __init__(
        self,
        sample_rate: int,
        seconds: float | None = None,
        mib: float = 1024,
        folder: Path | None = None,
        folder_mib: float = 16384,
        channel: Channel = "mean",
    ) -> None:
        self.wanted = sample_rate, seconds, channel
        self.memory: dict[str, Tensor] = {}
        self.room = mib * 2**20
        self.files = None
        if folder is not None and folder_mib:
            kind = f"{sample_rate}Hz" + (f"_{seconds}s" if seconds else "")
            kind += "" if channel == "mean" else f"_{channel}"
            self.files = ClipFiles(Path(folder) / kind, folder_mib)
        self.lock = threading.Lock()

    def __call__(self, wav: str) -> Tensor:
        """A clip, `(samples,)`; not to be changed."""
        clip = self.memory.get(wav)
        if clip is not None:
            return clip
        clip = None if self.files is None else self.files.get(wav)
        known = clip is not None
        if clip is None:
            clip = read_clip(wav, *self.wanted)
        size = clip.numel() * clip.element_size()
        with self.lock:
            fits = size <= self.room and wav not in self.memory
            if fits:
                self.memory[wav] = clip
                self.room -= size
        if not (fits or known or self.files is None):
            self.files.add(wav, clip)
        return clip


class ClipFiles:
    """Clips in files that are mapped into memory: float32, one after the other.

    Every process writes a file of its own, and beside it a line for each clip that is
    there whole: a killed run loses nothing, and no process waits for another. A clip
    whose size or time of change is another is another clip.

    Arguments
    ---------
    folder : Path
        One for all clips of one rate and cut.
    mib : float
        To which all files of the folder may grow.
    """

    def __init__(self, folder: Path, mib: float) -> None:
        self.folder, self.lock = folder, threading.Lock()
        self.places: dict[str, tuple[Path, int, int]] = {}  # file, start, samples
        self.keys: dict[str, str] = {}
        self.room = mib * 2**20
        self.own = folder / f"{os.getpid()}_{secrets.token_hex(4)}"
        self.written = 0
        for index in sorted(folder.glob(f"*{INDEX}")):
            self._read(index)

    def get(self, wav: str) -> Tensor | None:
        """A clip, or None if it is not there."""
        place = self.places.get(self._key(wav))
        if place is None:
            return None
        path, start, samples = place
        try:
            sound = np.memmap(path, np.float32, "r", start, (samples,))
        except (OSError, ValueError):  # gone since
            return None
        return torch.from_numpy(np.array(sound))

    def add(self, wav: str, clip: Tensor) -> None:
        """Write a clip, if there is room."""
        size = clip.numel() * clip.element_size()
        with self.lock:
            if size > self.room or self._key(wav) in self.places:
                return
            try:
                self._append(self._key(wav), clip)
                self.room -= size
            except OSError as error:
                self.room = 0
                logger.warning("%s: clips are decoded each time (%s).", self.own, error)

    def _append(self, key: str, clip: Tensor) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        disk = shutil.disk_usage(self.folder)
        if disk.free < LEAST_FREE * disk.total:
            raise OSError("the disk is almost full")
        sound = self.own.with_suffix(SOUND)
        with open(sound, "ab") as stream:
            stream.write(clip.contiguous().numpy())
        with open(self.own.with_suffix(INDEX), "a", encoding="utf-8") as stream:
            stream.write(f"{key} {self.written} {clip.numel()}\n")
        self.places[key] = sound, self.written, clip.numel()
        self.written += clip.numel() * clip.element_size()

    def _read(self, index: Path) -> None:
        sound = index.with_suffix(SOUND)
        there = sound.stat().st_size if sound.is_file() else 0
        self.room -= there
        for line in index.read_text(encoding="utf-8").splitlines():
            try:
                key, start, samples = line.split()
                place = sound, int(start), int(samples)
            except ValueError:  # the line of a process that was killed
                continue
            if place[1] >= 0 and place[2] > 0 and place[1] + 4 * place[2] <= there:
                self.places[key] = place

    def _key(self, wav: str) -> str:
        if wav not in self.keys:
            self.keys[wav] = digest(listing([wav]))[:32]
        return self.keys[wav]
