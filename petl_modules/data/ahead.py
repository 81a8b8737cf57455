"""What threads read ahead of whoever computes with it.

Decoding and resampling leave Python to itself, so that threads do it side by side, and
share one cache of clips, which processes could not. Each computes alone: had every one
a team of threads of its own, there would be more than cores, and OpenMP would put the
teams to sleep between any two operations, those of the training step too.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.dataio.dataset import DynamicItemDataset
from threadpoolctl import threadpool_limits


def ahead(
    function: Callable[[Any], Any], items: Iterable, threads: int
) -> Iterator[Any]:
    """`function(item)` of items in their order, with as many threads at work on the
    next ones; 0 threads compute each when it is asked for."""
    if not threads:
        yield from map(function, items)
        return
    waiting, pool = iter(items), ThreadPoolExecutor(threads, initializer=alone)
    under_way: deque = deque()
    try:
        while True:
            for item in waiting:
                under_way.append(pool.submit(function, item))
                if len(under_way) > threads:
                    break
            if not under_way:
                return
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def alone() -> None:
    """Let torch use the thread that calls this, and no others beside it."""
    torch.get_num_threads()  # which sets what the next line changes, once a thread
    threadpool_limits(1, user_api="openmp")


class AheadLoader(SaveableDataLoader):
    """SpeechBrain's data loader, whose batches threads prepare ahead.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
    threads : int
        0 prepares each batch when it is asked for.
    **kwargs
        For `torch.utils.data.DataLoader`.
    """

    def __init__(
        self, dataset: DynamicItemDataset, threads: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(dataset, **kwargs)
        self.threads = threads

    def batch(self, chosen: list[int]) -> Any:
        """The batch of some clips; may run in any thread."""
        found = self.collate_fn([self.dataset[i] for i in chosen])
        return found.pin_memory() if self.pin_memory else found

    def __iter__(self) -> "AheadBatches":
        self._speechbrain_iterator = AheadBatches(self, super().__iter__())
        return self._speechbrain_iterator


class AheadBatches:
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

    def __init__(self, loader: AheadLoader, inner: Any) -> None:
        self._num_yielded = inner._num_yielded
        self._batches = ahead(loader.batch, inner._sampler_iter, loader.threads)

    def __iter__(self) -> "AheadBatches":
        return self

    def __next__(self) -> Any:
        batch = next(self._batches)
        self._num_yielded += 1
        return batch
