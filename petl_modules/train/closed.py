"""An epoch on features that lie on the device, as a loop of its own.

Where nothing trains but a head and a norm, a step is a handful of small products, and
what SpeechBrain's loop does around it costs more than they do: a bar, a data loader, a
look at every loss. Here the device is given all steps of an epoch, and looked at once.
"""

from typing import Any

import torch
from speechbrain import Stage
from torch.utils.data import DataLoader

from petl_modules.data.ready import ReadyLoader


def is_closed(brain: Any, train_set: DataLoader) -> bool:
    """Whether an epoch of a `PetlBrain` can be such a loop: its features are ready, and
    nothing is asked for between two steps."""
    return (
        isinstance(train_set, ReadyLoader)
        and brain.step == 0
        and brain.ckpt_interval_steps == 0
        and brain.grad_accumulation_factor == 1
        and brain.train_sampler.processes == 1
        and not brain.scaler.is_enabled()
    )


def closed_epoch(brain: Any, train_set: Any, epoch: int) -> None:
    """An epoch of the steps that `PetlBrain.fit_batch` makes."""
    brain.on_stage_start(Stage.TRAIN, epoch)
    brain.modules.train()
    brain.train_sampler.set_epoch(epoch)
    losses, right, batches = [], [], [*brain.train_sampler]
    for batch in train_set.dataset.ready.batches(batches):
        brain.step += 1
        with brain.training_ctx:
            outputs = brain.compute_forward(batch, Stage.TRAIN)
            loss = brain.task.loss(outputs, batch)
        loss.backward()
        brain.optimizers_step()
        losses.append(loss.detach())
        right.append(brain.task.right(outputs, batch))
    ids = train_set.dataset.ready.ids
    for step, value in enumerate(torch.stack(losses).tolist()):
        brain.losses.note(value, step + 1, [ids[clip] for clip in batches[step]])
    if right[0] is not None:
        brain.right, brain.told = torch.stack(right).sum(), sum(map(len, batches))
    brain.on_stage_end(Stage.TRAIN, brain.losses.mean, epoch)
    brain.step = 0
