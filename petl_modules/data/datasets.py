"""From manifests to what a task reads: sound or cached features, and targets."""

import logging
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.sampler import DynamicBatchSampler, ReproducibleRandomSampler
from torch.utils.data import BatchSampler

from petl_modules.data.augmentation import OFF
from petl_modules.data.batch import Batch
from petl_modules.data.feature_cache import cached_features, mib_of_features
from petl_modules.data.reading import read_clip
from petl_modules.errors import UserError
from petl_modules.tasks.heads import Head

logger = logging.getLogger(__name__)

BUCKETS = 20  # of like lengths; more of them leave less padding and fewer full batches


def make_datasets(built, prepared, task, device):
    """The data sets of a run, by split.

    Arguments
    ---------
    built : dict
        A built config.
    prepared : petl_modules.data.Prepared
    task : object
        Of `petl_modules.tasks`.
    device : str or torch.device
        Where features are computed.

    Returns
    -------
    dict
        `{train, valid, test}` with id, wav, the task's sound (or features, where they
        are cached) and its target.

    Raises
    ------
    UserError
        For a target that the task does not know, or if nothing is left to train on.
    """
    sets = {}
    for split in ("train", "valid", "test"):
        sets[split] = make_dataset(
            getattr(prepared, split),
            built["model"].backbone.sample_rate,
            built["max_duration"] if task.cuts else None,
            built["audio_cache_mib"],
        )
        task.add_targets(sets[split])
    for split in task.fitted:
        sets[split] = fitting(sets[split], built, task, split)
    for dataset in sets.values():
        dataset.set_output_keys(["id", "wav", *task.sound, task.target])
        if may_cache(built, dataset):
            add_cached_features(dataset, built, task, device)
    return sets


def make_dataset(manifest, sample_rate, max_duration=None, cache_mib=1024):
    """A SpeechBrain data set of one manifest.

    Arguments
    ---------
    manifest : str or Path
    sample_rate : int
        Hz; clips are resampled to it and mixed to mono.
    max_duration : float or None
        Seconds after which clips are cut.
    cache_mib : float
        Decoded clips of this data set kept in memory, in MiB: decoding and resampling
        costs milliseconds a clip, which would come again every epoch. Clips that find
        no room are decoded each time.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        With id, wav, and sig: `(samples,)`; a task adds its targets.
    """
    memory, room = {}, [cache_mib * 2**20]

    def sig(wav):
        if wav in memory:
            return memory[wav]
        clip = read_clip(wav, sample_rate, max_duration)
        size = clip.numel() * clip.element_size()
        if size <= room[0]:
            memory[wav] = clip
            room[0] -= size
        return clip

    return sb.dataio.dataset.DynamicItemDataset.from_json(
        manifest,
        dynamic_items=[{"func": sig, "takes": "wav", "provides": "sig"}],
        output_keys=["id", "wav", "sig"],
    )


def batching(built, dataset, task, shuffle=False):
    """Arguments of the data loader of a data set of `make_datasets`.

    Batches hold `batch_size` clips, or with `max_batch_seconds` clips of like lengths:
    at most `batch_size` of them, and at most so many seconds once they are padded. A
    clip that is longer is a batch of its own. Their number is the same in every epoch;
    which clips they hold and their order hang on seed and epoch.
    """
    workers = {"num_workers": built["num_workers"], "collate_fn": Batch}
    if built["max_batch_seconds"] is None:
        if not shuffle:
            return {"batch_size": built["batch_size"], **workers}
        order = ReproducibleRandomSampler(dataset, seed=built["seed"])
        batches = ShuffledBatches(order, built["batch_size"], drop_last=False)
        return {"batch_sampler": batches, **workers}
    longest = (task.cuts and built["max_duration"]) or float("inf")
    batches = DynamicBatchSampler(
        dataset,
        built["max_batch_seconds"],
        num_buckets=BUCKETS,
        length_func=lambda entry: min(entry["duration"], longest),
        shuffle=shuffle,
        batch_ordering="random" if shuffle else "descending",
        max_batch_ex=built["batch_size"],
        seed=built["seed"],
    )
    return {"batch_sampler": batches, **workers}


class ShuffledBatches(BatchSampler):
    """Batches in an order that is drawn for each epoch."""

    def set_epoch(self, epoch):
        """Draw another order."""
        self.sampler.set_epoch(epoch)


def fitting(dataset, built, task, split):
    """The clips that are not too long, and long enough for their text."""
    longest = built["max_duration"] or float("inf")
    backbone, left_out = built["model"].backbone, []
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


def may_cache(built, dataset):
    """Whether the features of a clip stay the same through training, and fit."""
    model, head = built["model"], built["head"]
    augmented = any(built[knob] != off for knob, off in OFF.items())
    if not built["feature_cache"] or augmented or not model.frozen_below_head:
        return False
    if not isinstance(head, Head):  # what it reads is no features
        return False
    return mib_of_features(model, head, dataset) <= built["audio_cache_mib"]


def add_cached_features(dataset, built, task, device):
    """Let a data set give the head's features in the place of sound."""
    known = cached_features(
        Path(built["output_folder"]) / "feature_cache",
        built["model"].to(device),
        built["head"],
        dataset,
        built["batch_size"],
        device,
        progress=not built["noprogressbar"],
    )
    dataset.add_dynamic_item(known.get, takes="wav", provides="features")
    dataset.set_output_keys(["id", "features", task.target])
