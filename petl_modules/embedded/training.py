"""The training of the student: batches of crops, losses, checkpoints."""

import math
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ASTModel

from petl_modules.console import progress_bar
from petl_modules.embedded.components import Components
from petl_modules.embedded.networks import STEP, make_student
from petl_modules.files import whole

WARM_UP = 500  # steps
WHITENED = 0.5  # of the second teacher's components, whose variances differ much
LOSSES = "steps", "clip", "sources", "second's steps", "second's clip", "second's mean"


def train(options: Namespace, cache: Path, clips: dict[str, Tensor]) -> ASTModel:
    """The trained AST; checkpoints every epoch."""
    batches = Batches(options, clips)
    size, *second = (c.directions.shape[1] for c in batches.components)
    student = make_student(options, size, clips["sources"].shape[-1], sum(second))
    student = student.to(options.device)
    matrices = [p for p in student.parameters() if p.ndim == 2]
    others = [p for p in student.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": others, "weight_decay": 0.0}],
        lr=options.lr,
        betas=(0.9, 0.98),
        weight_decay=0.05,
    )
    total = options.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(
            (step + 1) / min(WARM_UP, total),
            0.5 * (1 + math.cos(math.pi * min(1.0, step / total))) + 1e-3,
        ),
    )
    checkpoint = cache / "checkpoint.pt"
    parts = {"student": student, "optimizer": optimizer, "schedule": schedule}
    begin = resume(checkpoint, parts)
    bar = progress_bar(total=total, initial=begin * len(batches), desc="training")
    for epoch in range(begin, options.epochs):
        sums = torch.zeros(3 + len(student.second), device=options.device)
        for batch in batches.of_epoch(epoch):
            with torch.autocast(batch.features.device.type, torch.bfloat16):
                predictions = student(batch.features, batch.offset)
            losses = batches.losses(batch, [p.float() for p in predictions])
            optimizer.zero_grad()
            losses.sum().backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            sums += losses.detach()
            bar.update()
        means = zip(LOSSES, (sums / len(batches)).tolist(), strict=False)
        bar.set_postfix_str(" ".join(f"{name} {mean:.4f}" for name, mean in means))
        state = {name: part.state_dict() for name, part in parts.items()}
        with whole(checkpoint) as partial:
            torch.save({"epoch": epoch + 1, **state}, partial)
    bar.close()
    return student.ast.eval().cpu()


class Batch(NamedTuple):
    """Normalised features, the place they begin at in the position table, the teacher's
    principal components at every step, sources, and a second teacher's principal
    components at every token, or None."""

    features: Tensor
    offset: int
    targets: Tensor
    sources: Tensor
    second: Tensor | None


class Batches:
    """An epoch's batches: mostly crops of half the length, from anywhere in the clip
    and put anywhere in the position table, else whole clips."""

    def __init__(self, options: Namespace, clips: dict[str, Tensor]) -> None:
        self.size, self.seed = options.batch_size, options.seed
        self.patch, self.weight = options.mel_bins, options.second_weight
        self.mean, self.deviation = feature_statistics(clips["features"])
        self.clips = {name: part.to(options.device) for name, part in clips.items()}
        some = slice(None, None, max(1, len(clips["targets"]) // 4000))
        targets = self.clips["targets"][some]
        self.components = [Components(targets, options.target_size, placed=True)]
        if "logits" in clips:
            logits = self.clips["logits"][some]
            kept = options.second_size
            self.components.append(Components(logits, kept, False, WHITENED))

    def __len__(self) -> int:
        return max(1, len(self.clips["features"]) // self.size)

    def of_epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches. An epoch has its own seed, so that a resumed run draws the
        same."""
        generator = torch.Generator().manual_seed(self.seed * 100003 + epoch)
        clips, patch = self.clips, self.patch // STEP
        steps = clips["targets"].shape[1]
        order = torch.randperm(len(clips["features"]), generator=generator)
        for batch in order.split(self.size)[: len(self)]:
            whole = torch.rand((), generator=generator) < 0.25
            length = steps if whole else steps // 2
            batch = batch[: len(batch) // 2 + 1] if whole else batch
            start, offset = (
                int(torch.randint(steps - length + 1, (), generator=generator))
                for _ in range(2)
            )
            part = slice(start, start + length)
            x = clips["features"][batch, start * STEP : (start + length) * STEP].float()
            x = (x - self.mean) / (2 * self.deviation)
            targets = self.components[0](clips["targets"][batch, part], part)
            second = None
            if "logits" in clips:
                part = slice(start, start + length - patch + 1)
                second = self.components[1](clips["logits"][batch, part], part)
            yield Batch(
                augment(x, self.deviation, generator),
                offset,
                targets,
                clips["sources"][batch].float(),
                second,
            )

    def losses(self, batch: Batch, predictions: list[Tensor]) -> Tensor:
        """The losses that are summed, as `LOSSES` names them."""
        steps, clip, names, *seconds = predictions
        pairs = [
            (steps, self.seen_by_tokens(batch.targets), 1.0),
            (clip, batch.targets.mean(1), 1.0),
        ]
        if batch.second is not None:
            mean = batch.second.mean(1)
            weights = [self.weight] * len(seconds)
            pairs += zip(seconds, (batch.second, mean, mean), weights, strict=True)
        errors = [w * F.mse_loss(guess, truth) / 2 for guess, truth, w in pairs]
        sources = F.binary_cross_entropy_with_logits(names, batch.sources)
        return torch.stack([*errors[:2], sources, *errors[2:]])

    def seen_by_tokens(self, targets: Tensor) -> Tensor:
        """Targets `(clips, steps, size)` of the two steps in the middle of every
        patch, averaged: `(clips, tokens, size)`."""
        begin = self.patch // STEP // 2 - 1
        pairs = targets.unfold(1, 2, 1).mean(-1)
        return pairs[:, begin : pairs.shape[1] - begin]


def augment(x: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Changes the level and the spectral tilt of normalised log energies `(clips,
    frames, mel bins)` and masks a band and a stretch of time, at random per clip."""
    clips, frames, bins = x.shape

    def draw(low: float, high: float) -> Tensor:
        drawn = torch.empty(clips, 1, 1).uniform_(low, high, generator=generator)
        return drawn.to(x.device)

    tilt = draw(-0.15, 0.15) * torch.linspace(-1, 1, bins, device=x.device)
    level = draw(-2.0, 6.0) / (2 * deviation)  # -9 to 26 dB
    x = x + tilt + level
    across, along = (torch.arange(n, device=x.device) for n in (bins, frames))
    for places in (across, along.unsqueeze(1)):
        width = draw(0, 0.2) * places.numel()
        begin = draw(-0.5, 1) * places.numel()  # a third of the draws mask nothing
        x = x.masked_fill((places >= begin) & (places < begin + width), 0.0)
    return x


def feature_statistics(features: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the log energies, for the preprocessor."""
    part = features[:: max(1, len(features) // 1000)].float()
    return float(part.mean()), float(part.std())


def resume(checkpoint: Path, parts: dict) -> int:
    """Loads the checkpoint if there is one; gives the epoch to begin with."""
    if not checkpoint.is_file():
        return 0
    state = torch.load(checkpoint, map_location="cpu")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["epoch"]
