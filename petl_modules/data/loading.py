"""The knobs that say how clips are read and put into batches."""

import os
from dataclasses import dataclass
from typing import Annotated

from petl_modules.data.reading import Channel
from petl_modules.kinds import Count, Positive, PositiveInt, Range, Seconds
from petl_modules.knobs import Section


@dataclass(frozen=True)
class Loading(Section):
    """How clips are read, kept and put into batches.

    Arguments
    ---------
    max_duration : float or None
        Seconds after which a clip is cut, or left out where its text is that of the
        whole clip.
    channel : str
        What training and its test hear of several channels: their mean, or the first.
    batch_size : int
        Clips in a batch, of all processes together.
    max_batch_seconds : float or None
        Seconds of sound and padding in a batch, which then holds clips of like
        lengths; null for batches of any clips.
    audio_cache_mib : int
        Mebibytes of decoded clips, or of cached features, that are kept in memory.
    disk_cache_mib : int
        Mebibytes of decoded clips in a file under output_folder, for those that memory
        has no room for and for later runs; 0: none.
    cache_folder : str or None
        A folder that several runs share: decoded clips are kept in files there, not in
        each run's memory, and features too; null is output_folder, for what memory has
        no room for.
    num_workers : int or None
        Threads that read clips ahead; null for one a core, 8 at most, 0 for none.
    feature_cache : bool
        Whether a linear probe without augmentation computes its features once, if they
        fit into audio_cache_mib.
    """

    max_duration: Seconds | None = None
    channel: Channel = "mean"
    batch_size: PositiveInt = 32
    max_batch_seconds: Positive | None = None
    audio_cache_mib: Count = 1024
    disk_cache_mib: Count = 16384
    cache_folder: str | None = None
    num_workers: Annotated[int, Range(0, 256)] | None = None
    feature_cache: bool = True

    @property
    def clips_mib(self) -> int:
        """Mebibytes of decoded clips that this run keeps in memory."""
        return 0 if self.cache_folder else self.audio_cache_mib

    @property
    def threads(self) -> int:
        """Threads that read clips ahead."""
        if self.num_workers is not None:
            return self.num_workers
        return min(8, len(os.sched_getaffinity(0)))
