"""The training of the student: batches of crops, losses, checkpoints."""

import math
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ASTModel

from petl_modules.console import progress_bar
from petl_modules.embedded.networks import STEP, make_student
from petl_modules.files import whole

WARM_UP = 500  # steps


def train(options: Namespace, cache: Path, clips: dict[str, Tensor]) -> ASTModel:
    """The trained AST; checkpoints every epoch."""
    batches = Batches(options, clips)
    student = make_student(
        options, batches.directions.shape[1], clips["sources"].shape[-1]
    )
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
        sums = torch.zeros(3)
        for features, offset, targets, sources in batches.of_epoch(epoch):
            with torch.autocast("cpu", torch.bfloat16):
                steps, clip, names = student(features, offset)
            losses = torch.stack(
                [
                    F.mse_loss(steps.float(), batches.seen_by_tokens(targets)) / 2,
                    F.mse_loss(clip.float(), targets.mean(1)) / 2,
                    F.binary_cross_entropy_with_logits(names.float(), sources),
                ]
            )
            optimizer.zero_grad()
            losses.sum().backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            sums += losses.detach()
            bar.update()
        steps, clip, names = (sums / len(batches)).tolist()
        bar.set_postfix_str(f"steps {steps:.4f} clip {clip:.4f} sources {names:.4f}")
        state = {name: part.state_dict() for name, part in parts.items()}
        with whole(checkpoint) as partial:
            torch.save({"epoch": epoch + 1, **state}, partial)
    bar.close()
    return student.ast.eval()


class Batches:
    """An epoch's batches: mostly crops of half the length, from anywhere in the clip
    and put anywhere in the position table, else whole clips."""

    def __init__(self, options: Namespace, clips: dict[str, Tensor]) -> None:
        self.clips, self.size, self.seed = clips, options.batch_size, options.seed
        self.mean, self.deviation = feature_statistics(clips["features"])
        self.patch = options.mel_bins
        targets = clips["targets"]
        some = targets[:: max(1, len(targets) // 4000)].float()
        # The teacher's states say when in the clip they are, and a crop cannot know
        self.shift = some.mean(0)
        some = (some - self.shift).flatten(0, 1)
        scale = some.std(0).clamp(min=1e-4)
        some = some / scale
        variances, directions = torch.linalg.eigh(some.T @ some / len(some))
        kept = min(options.target_size, len(variances))
        directions = directions[:, -kept:] / variances[-kept:].mean().sqrt()
        self.directions = directions / scale.unsqueeze(1)

    def __len__(self) -> int:
        return max(1, len(self.clips["features"]) // self.size)

    def of_epoch(self, epoch: int) -> Iterator[tuple[Tensor, int, Tensor, Tensor]]:
        """Normalised features, the place they begin at in the position table, the
        targets' principal components, and sources. An epoch has its own seed, so that
        a resumed run draws the same."""
        generator = torch.Generator().manual_seed(self.seed * 100003 + epoch)
        features, targets = self.clips["features"], self.clips["targets"]
        steps = targets.shape[1]
        order = torch.randperm(len(features), generator=generator)
        for batch in order.split(self.size)[: len(self)]:
            whole = torch.rand((), generator=generator) < 0.25
            length = steps if whole else steps // 2
            batch = batch[: len(batch) // 2 + 1] if whole else batch
            start, offset = (
                int(torch.randint(steps - length + 1, (), generator=generator))
                for _ in range(2)
            )
            part = slice(start, start + length)
            x = features[batch, start * STEP : (start + length) * STEP].float()
            x = (x - self.mean) / (2 * self.deviation)
            y = (targets[batch, part].float() - self.shift[part]) @ self.directions
            yield (
                augment(x, self.deviation, generator),
                offset,
                y,
                self.clips["sources"][batch].float(),
            )

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
        return torch.empty(clips, 1, 1).uniform_(low, high, generator=generator)

    tilt = draw(-0.15, 0.15) * torch.linspace(-1, 1, bins)
    level = draw(-2.0, 6.0) / (2 * deviation)  # -9 to 26 dB
    x = x + tilt + level
    for places in (torch.arange(bins), torch.arange(frames).unsqueeze(1)):
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
    state = torch.load(checkpoint)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["epoch"]
