"""The mean spectra that new voices start from: what throat, microphone and room add."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch import Tensor

MOST = 20  # clips of a speaker that are heard


@torch.no_grad()
def match_spectra(task: Any, dataset: DynamicItemDataset) -> None:
    """Set the mean spectra of a task's head so that what the model says, led by the
    recordings' durations, pitch and energy, has the recordings' mean in each mel bin.

    Arguments
    ---------
    task : petl_modules.tts.task.TTS
        Whose head has mean spectra.
    dataset : DynamicItemDataset
        With the task's targets; what trains.
    """
    head, model = task.head, task.model.eval()
    errors: dict[int, list[Tensor]] = {}
    for inputs in alone(task, dataset):
        target, speakers = inputs["target"], inputs["speakers"]
        voice = head(speakers)
        speech = model(inputs["symbols"], inputs["counts"], voice, target)
        said = head.coloured(speech, speakers).mel.float()
        errors.setdefault(int(speakers), []).append((target.mel - said)[0])
    for speaker, parts in errors.items():
        head.spectrum[speaker] += torch.cat(parts).mean(0)


def alone(task: Any, dataset: DynamicItemDataset) -> Iterator[dict[str, Any]]:
    """The model's inputs for the first clips of every speaker, one clip each."""
    heard: Counter[str] = Counter()
    device = next(task.backbone.parameters()).device
    with dataset.output_keys_as(["id", *task.sound, task.target]):
        for place, key in enumerate(dataset.data_ids):
            entry = dataset.data[key]
            samples = int(entry["duration"] * task.features.sample_rate)
            fits = task.fits(entry, samples // task.features.hop_length)
            if fits and heard[entry["speaker"]] < MOST:
                heard[entry["speaker"]] += 1
                yield task.inputs(PaddedBatch([dataset[place]]).to(device))
