"""From manifests to what a task reads: sound or cached features, and targets."""

import logging
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import (
    DynamicBatchSampler,
    ReproducibleRandomSampler,
    ReproducibleWeightedRandomSampler,
)
from torch.utils.data import BatchSampler

from petl_modules.core.adapted import AdaptedModel
from petl_modules.data.batch import Batch
from petl_modules.data.clip_cache import Clips
from petl_modules.data.feature_cache import cached_features, mib_of_features
from petl_modules.data.loading import Loading
from petl_modules.data.manifests import Prepared
from petl_modules.data.ready import Ready
from petl_modules.errors import UserError

logger = logging.getLogger(__name__)

READY = 1024  # clips in a batch that is only looked at, where features are ready
BUCKETS = 20  # of like lengths; more of them leave less padding and fewer full batches


def make_datasets(
    prepared: Prepared,
    task: Any,
    model: AdaptedModel,
    head: torch.nn.Module,
    loading: Loading,
    device: str | torch.device,
    feature_folder: Path | None = None,
    clip_folder: Path | None = None,
    progress: bool = True,
) -> dict:
    """The data sets of a run, by split.

    Arguments
    ---------
    prepared : petl_modules.data.Prepared
    task : object
        Of `petl_modules.tasks`.
    model : AdaptedModel
    head : torch.nn.Module
        Whose features may be kept if it says so with a true `cacheable`.
    loading : Loading
    device : str or torch.device
        Where features are computed.
    feature_folder : Path or None
        Where they are kept; None where they are to be computed anew in every epoch.
    clip_folder : Path or None
        Where decoded clips are kept that memory has no room for; None: nowhere.
    progress : bool
        Whether a bar is shown while they are computed.

    Returns
    -------
    dict
        `{train, valid, test}` with id, wav, the task's sound (or features, where they
        are cached) and its target.

    Raises
    ------
    UserError
        For a target that the task does not know, a clip that is too long for the
        backbone, or if nothing is left to train on.
    """
    rate, sets = model.backbone.sample_rate, {}
    clips = Clips(
        rate,
        loading.max_duration if task.cuts else None,
        loading.clips_mib,
        clip_folder,
        loading.disk_cache_mib,
        loading.channel,
    )
    for split in ("train", "valid", "test"):
        sets[split] = make_dataset(getattr(prepared, split), rate, clips=clips)
        task.add_targets(sets[split])
    for split in task.fitted:
        sets[split] = fitting(sets[split], loading, model.backbone, task, split)
    for split, dataset in sets.items():
        refuse_long(dataset, loading.max_duration if task.cuts else None, model, split)
        dataset.set_output_keys(["id", "wav", *task.sound, task.target])
        if feature_folder is not None and may_cache(model, head, dataset, loading):
            known = cached_features(
                feature_folder,
                model.to(device),
                head,
                dataset,
                loading.batch_size,
                device,
                progress,
                loading.threads,
            )
            dataset.add_dynamic_item(known.get, takes="wav", provides="features")
            dataset.set_output_keys(["id", "wav", "features", task.target])
            dataset.ready = Ready.of(dataset, known, task.target, device)
    return sets


def make_dataset(
    manifest: str | Path,
    sample_rate: int,
    max_duration: float | None = None,
    cache_mib: float = 1024,
    clips: Clips | None = None,
) -> DynamicItemDataset:
    """A SpeechBrain data set of one manifest.

    Arguments
    ---------
    manifest : str or Path
    sample_rate : int
        Hz; clips are resampled to it and mixed to mono.
    max_duration : float or None
        Seconds after which clips are cut.
    cache_mib : float
        Decoded clips that are kept in memory, in MiB.
    clips : Clips or None
        What decodes and keeps clips, in the place of the last three: data sets may
        share one.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        With id, wav, and sig: `(samples,)`; a task adds its targets.
    """
    sig = clips or Clips(sample_rate, max_duration, cache_mib)
    return sb.dataio.dataset.DynamicItemDataset.from_json(
        manifest,
        dynamic_items=[
            {"func": lambda wav: sig(wav), "takes": "wav", "provides": "sig"}
        ],
        output_keys=["id", "wav", "sig"],
    )


def batching(
    loading: Loading,
    dataset: DynamicItemDataset,
    task: Any,
    seed: int,
    shuffle: bool = False,
) -> dict:
    """Arguments of the data loader of a data set of `make_datasets`.

    Batches hold `batch_size` clips, or with `max_batch_seconds` clips of like lengths:
    at most `batch_size` of them, and at most so many seconds once they are padded. A
    clip that is longer is a batch of its own. Their number is the same in every epoch;
    which clips they hold and their order hang on seed and epoch.
    """
    workers = {"threads": loading.threads, "collate_fn": Batch}
    draws = task.draws(dataset) if shuffle else None
    if draws is not None and loading.max_batch_seconds is not None:
        raise UserError(
            "Clips that are drawn for balance are in batches of batch_size: leave out "
            "max_batch_seconds."
        )
    if loading.max_batch_seconds is None:
        if not shuffle:
            ready = getattr(dataset, "ready", None) is not None
            size = max(READY, loading.batch_size) if ready else loading.batch_size
            return {"batch_size": size, **workers}
        order = ReproducibleRandomSampler(dataset, seed=seed)
        if draws is not None:
            order = ReproducibleWeightedRandomSampler(draws, len(draws), True, seed)
        batches = ShuffledBatches(order, loading.batch_size, drop_last=False)
        return {"batch_sampler": batches, **workers}
    longest = (task.cuts and loading.max_duration) or float("inf")
    batches = DynamicBatchSampler(
        dataset,
        loading.max_batch_seconds,
        num_buckets=BUCKETS,
        length_func=lambda entry: min(entry["duration"], longest),
        shuffle=shuffle,
        batch_ordering="random" if shuffle else "descending",
        max_batch_ex=loading.batch_size,
        seed=seed,
    )
    return {"batch_sampler": batches, **workers}


class ShuffledBatches(BatchSampler):
    """Batches in an order that is drawn for each epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Draw another order."""
        self.sampler.set_epoch(epoch)


def fitting(
    dataset: DynamicItemDataset, loading: Loading, backbone: Any, task: Any, split: str
) -> DynamicItemDataset:
    """The clips that are not too long, and long enough for their text."""
    longest = loading.max_duration or float("inf")
    left_out = []
    fastest = backbone.fastest if split == "train" else 1.0
    for key, entry in dataset.data.items():
        seconds = entry["duration"] / fastest
        samples = torch.tensor(round(seconds * backbone.sample_rate))
        fits = task.fits(entry, int(backbone.steps(samples)))
        if entry["duration"] > longest or not fits:
            left_out.append(key)
    if not left_out:
        return dataset
    logger.warning(
        "Left out of %s, longer than max_duration or shorter than their text needs: "
        "%d of %d clips, such as %s.",
        split,
        len(left_out),
        len(dataset),
        left_out[0],
    )
    if len(left_out) == len(dataset):
        raise UserError(f"No {split} clip fits its text: is max_duration too small?")
    gone = set(left_out)
    return dataset.filtered_sorted(key_test={"id": lambda key: key not in gone})


def refuse_long(
    dataset: DynamicItemDataset,
    max_duration: float | None,
    model: AdaptedModel,
    split: str,
) -> None:
    """Raise a UserError for a clip that is longer than the backbone hears at once,
    before an epoch is spent."""
    backbone = model.backbone
    if (room := backbone.capacity()) is None:
        return
    filled = backbone.hears_silence  # to one length, and so to as many steps
    if filled and backbone.has_head:  # a writer cuts what it fills up
        return
    seconds, key = max((e["duration"], key) for key, e in dataset.data.items())
    heard = min(seconds, max_duration or seconds)
    samples = torch.tensor([round(heard * backbone.sample_rate), room])
    needed, there = backbone.steps(samples).tolist()
    if needed > there or (filled and int(samples[0]) > room):
        most = room * 10 // backbone.sample_rate / 10
        raise UserError(
            f"The {split} clip {key} is {seconds:.1f} s long, and {backbone.source} "
            f"hears {most} s at once: cut clips with --max_duration={most}."
        )


def may_cache(
    model: AdaptedModel, head: Any, dataset: DynamicItemDataset, loading: Loading
) -> bool:
    """Whether the features of a clip stay the same through training, and fit."""
    if not (model.frozen_below_head and getattr(head, "cacheable", False)):
        return False
    return mib_of_features(model, head, dataset) <= loading.audio_cache_mib
