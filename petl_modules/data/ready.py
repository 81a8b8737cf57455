"""Batches of features that lie on the device already: an epoch of a linear probe is
then a handful of products, and no clip is gathered by itself."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch import Tensor

from petl_modules.core.transfer import to_device
from petl_modules.data.ahead import AheadLoader


class Ready:
    """The features and targets of a data set's clips, side by side.

    Arguments
    ---------
    features : Tensor
        `(clips, steps, layers, hidden)`, on the device.
    targets : Tensor
        `(clips,)`, whole numbers, or rows of one number a label; on the device.
    ids, wavs : list of str
    target : str
        What the targets are called.
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        ids: list[str],
        wavs: list[str],
        target: str,
    ) -> None:
        self.features, self.targets = features, targets
        self.ids, self.wavs, self.target = ids, wavs, target
        clips, steps = features.shape[:2]
        self.counts = torch.full((clips,), steps, device=features.device)

    @classmethod
    def of(
        cls,
        dataset: DynamicItemDataset,
        known: Mapping[str, Tensor],
        target: str,
        device: str | torch.device,
    ) -> "Ready | None":
        """Those of a data set, or None where clips differ in their steps, or targets
        are more than a number each."""
        with dataset.output_keys_as(["id", "wav", target]):
            clips = [dataset[i] for i in range(len(dataset))]
        features = [known[clip["wav"]] for clip in clips]
        targets = [clip[target] for clip in clips]
        alike = len({f.shape for f in features}) == 1
        # one number a label; what is spelt has whole numbers, as many as it is long
        rows = all(isinstance(t, Tensor) and t.is_floating_point() for t in targets)
        rows = rows and len({len(t) for t in targets}) == 1
        if not alike or not (rows or all(type(t) is int for t in targets)):
            return None
        ids, wavs = ([clip[key] for clip in clips] for key in ("id", "wav"))
        stacked = torch.stack(features).to(device)
        told = torch.stack(targets) if rows else torch.tensor(targets)
        return cls(stacked, told.to(device), ids, wavs, target)

    def batches(self, chosen: Sequence[Sequence[int]]) -> Iterator["ReadyBatch"]:
        """The batches of some clips each; their places go to the device at once."""
        device = self.features.device
        places = torch.tensor([i for clips in chosen for i in clips])
        places = to_device(places, device).split([len(clips) for clips in chosen])
        for clips, own in zip(chosen, places, strict=True):
            batch = ReadyBatch()
            batch.id = [self.ids[i] for i in clips]
            batch.wav = [self.wavs[i] for i in clips]
            batch.features = self.features[own], self.counts[own]
            setattr(batch, self.target, self.targets[own])
            yield batch


class ReadyBatch:
    """A batch that is where it is needed; `features` are `(batch, steps, layers,
    hidden)` and valid steps `(batch,)`."""

    def to(self, *args: Any, **kwargs: Any) -> "ReadyBatch":
        """Itself."""
        return self


class ReadyLoader(AheadLoader):
    """The data loader of a data set whose features are ready.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        With a `Ready` as its `ready`.
    threads : int
        Not needed here.
    **kwargs
        For `torch.utils.data.DataLoader`.
    """

    def __init__(
        self, dataset: DynamicItemDataset, threads: int = 0, **kwargs: Any
    ) -> None:
        del threads
        super().__init__(dataset, 0, **{**kwargs, "pin_memory": False})

    def batch(self, chosen: list[int]) -> ReadyBatch:
        return next(self.dataset.ready.batches([chosen]))


def loader_of(dataset: DynamicItemDataset, **kwargs: Any) -> AheadLoader:
    """The loader that suits a data set."""
    ready = getattr(dataset, "ready", None) is not None
    return (ReadyLoader if ready else AheadLoader)(dataset, **kwargs)
