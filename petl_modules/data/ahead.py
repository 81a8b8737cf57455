"""Batches that threads read ahead of whoever trains on them.

Decoding and resampling leave Python to itself, so that threads do it side by side, and
share one cache of clips, which processes could not.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from speechbrain.dataio.dataloader import SaveableDataLoader


class AheadLoader(SaveableDataLoader):
    """SpeechBrain's data loader, whose batches threads prepare ahead.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
    threads : int
        As many batches are under way; 0 prepares each when it is asked for.
    **kwargs
        For `torch.utils.data.DataLoader`.
    """

    def __init__(self, dataset, threads: int = 0, **kwargs) -> None:
        super().__init__(dataset, **kwargs)
        self.threads = threads

    def __iter__(self) -> Iterator:
        iterator = super().__iter__()
        if self.threads:
            iterator = Ahead(self, iterator)
        self._speechbrain_iterator = iterator
        return iterator


class Ahead:
    """An epoch's batches in their order.

    Arguments
    ---------
    loader : AheadLoader
    inner : iterator
        torch's, which says which clips are next: it may have skipped some.

    Attributes
    ----------
    _num_yielded : int
        Batches that were asked for, under the name that SpeechBrain's checkpoints look
        for.
    """

    def __init__(self, loader: AheadLoader, inner: Iterator) -> None:
        self._num_yielded = inner._num_yielded
        self.indices = inner._sampler_iter
        self.dataset, self.collate = loader.dataset, loader.collate_fn
        self.pin = torch.cuda.is_available()
        self.pool = ThreadPoolExecutor(loader.threads, thread_name_prefix="ahead")
        self.under_way: deque = deque()
        self.depth = loader.threads + 1

    def __iter__(self) -> "Ahead":
        return self

    def __next__(self):
        while len(self.under_way) < self.depth:
            try:
                chosen = next(self.indices)
            except StopIteration:
                break
            self.under_way.append(self.pool.submit(self.batch, chosen))
        if not self.under_way:
            self.pool.shutdown(wait=False)
            raise StopIteration
        batch = self.under_way.popleft().result()
        self._num_yielded += 1
        return batch

    def batch(self, chosen: list[int]):
        """A batch of some clips, in memory that a GPU can read by itself."""
        batch = self.collate([self.dataset[i] for i in chosen])
        return batch.pin_memory() if self.pin else batch

    def __del__(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
