"""Features that are computed once: for a linear probe, everything below its head."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from petl_modules.console import progress_bar
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.precision import base_precision
from petl_modules.data.ahead import ahead
from petl_modules.data.tensor_cache import TensorCache
from petl_modules.files import digest, listing

logger = logging.getLogger(__name__)

PART_SECONDS = 60  # of work that a kill can lose


def cached_features(
    folder: str | Path,
    model: AdaptedModel,
    head: Any,
    dataset: DynamicItemDataset,
    batch_size: int,
    device: str | torch.device,
    progress: bool = True,
    threads: int = 0,
) -> dict[str, torch.Tensor]:
    """The features that the head reads of every clip of a data set.

    Arguments
    ---------
    folder : str or Path
        Where they are kept, in one folder for one backbone, preprocessing and head. A
        killed run goes on with what it had computed.
    model : AdaptedModel
        With `frozen_below_head`.
    head : Head
        Of `petl_modules.tasks.heads`.
    dataset : DynamicItemDataset
        With wav and sig.
    batch_size : int
    device : str or torch.device
    progress : bool
        Whether a bar is shown.
    threads : int
        That read clips ahead.

    Returns
    -------
    dict
        `{wav: (steps, layers, hidden)}`.
    """
    cache = TensorCache(Path(folder) / key_of(model, head))
    wavs = [dataset.data[i]["wav"] for i in dataset.data_ids]
    names = {wav: clip_key(wav, model.backbone.max_duration) for wav in wavs}
    missing = [i for i, wav in enumerate(wavs) if names[wav] not in cache]
    model.eval()
    # clips of one length go together, so that nothing is padded for nothing
    missing.sort(key=lambda i: dataset.data[dataset.data_ids[i]]["duration"])
    batches = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
    bar = progress_bar(total=len(batches), desc="features", shown=progress)
    part, began = {}, time.monotonic()
    read = ahead(lambda batch: [dataset[i] for i in batch], batches, threads)
    with torch.no_grad(), bar:
        for place, clips in enumerate(read):
            sigs = [clip["sig"] for clip in clips]
            padded = torch.nn.utils.rnn.pad_sequence(sigs, batch_first=True).to(device)
            lens = torch.tensor([len(sig) / padded.shape[1] for sig in sigs])
            features, counts = model.features(padded, lens, head)
            for clip, steps, n in zip(clips, features.cpu(), counts, strict=True):
                part[names[clip["wav"]]] = steps[:n].clone()
            bar.update()
            if place == len(batches) - 1 or time.monotonic() - began > PART_SECONDS:
                cache.add(part)
                part, began = {}, time.monotonic()
    cached = len(wavs) - len(missing)
    logger.info("Features: %d computed, %d from the cache.", len(missing), cached)
    return {wav: cache[name] for wav, name in names.items()}


def mib_of_features(
    model: AdaptedModel, head: Any, dataset: DynamicItemDataset
) -> float:
    """Mebibytes that the features of a data set take, or a little more."""
    backbone, steps = model.backbone, len(dataset)
    if head.by_time:
        seconds = [dataset.data[key]["duration"] for key in dataset.data_ids]
        samples = (torch.tensor(seconds) * backbone.sample_rate).round().long()
        steps = int(backbone.steps(samples).sum())
    layers = backbone.num_layers + 1 if head.weighted_sum else 1
    return steps * layers * backbone.hidden_size * 4 / 2**20


def key_of(model: AdaptedModel, head: Any) -> str:
    """What all features of one file share."""
    facts = {
        "backbone": model.backbone.fingerprint(),
        "preprocessing": model.backbone.preprocessing,
        "axes": ["steps", "layers", "hidden"],
        "pooling": head.pooling,
        "by_time": head.by_time,
        "layer_adapters": bool(head.layer_adapters),
        "weighted_sum": head.weighted_sum,
        "normalize_layers": head.normalize_layers,
    }
    if base_precision(model) != "fp32":
        facts["base_precision"] = base_precision(model)
    return digest(facts)[:20]


def clip_key(wav: str, max_duration: float | None) -> str:
    """A clip as it is now: its path, size, time of change, and cut."""
    return digest([listing([wav]), max_duration])[:32]
