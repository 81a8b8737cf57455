"""Step time and memory of every method on a whole backbone: a table of `petl speed`."""

import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

from petl_modules.backbones import load_backbone
from petl_modules.console import progress_bar
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.measure import peak_memory_mib, reset_peak_memory
from petl_modules.core.task_model import TaskModel
from petl_modules.errors import UserError
from petl_modules.methods import make_method, method_table
from petl_modules.tasks.heads import ClassificationHead

SHORTEST = 0.6  # of a padded batch's clips, relative to the longest
# Beside every method as it is by default: what of its knobs changes what is computed
VARIANTS = {
    f"lora, {variant}": ("lora", {"variant": variant})
    for variant in ("dora", "pissa", "lora_fa")
}
RATIOS = (("mamba", "conformer"), ("lora, dora", "lora"))  # below the table


def method_steps(options: Namespace) -> Table:
    """Step time of every method on a whole backbone, on clips of several lengths, and
    the memory at its peak that the process did not hold before the model was loaded.
    """
    table = Table("method", "trained", "step ms", "of full", "peak MiB", "of full")
    table.title = (
        f"A training step, batch {options.batch_size}, clips of "
        f"{SHORTEST * options.seconds:g} to {options.seconds:g} s, {options.source}"
    )
    rows, refused = {}, []
    for name in progress_bar([*method_table(), *VARIANTS], desc="methods"):
        reset_peak_memory(options.device)
        before = peak_memory_mib(options.device)
        try:
            model, step = step_of(name, options)
        except UserError as error:  # not on this backbone
            refused.append(str(error))
            continue
        step()
        times = [seconds_of(step, options) for _ in range(options.repeats)]
        trained = sum(p.numel() for p in model.trained_parameters().values())
        peak = peak_memory_mib(options.device) - before
        rows[name] = trained, statistics.median(times), peak
        del model, step
    _, full_time, full_peak = rows["full"]
    for name, (trained, seconds, peak) in rows.items():
        table.add_row(
            name,
            f"{trained:,}",
            f"{seconds * 1e3:.0f}",
            f"{seconds / full_time:.2f}",
            f"{peak:.0f}",
            f"{peak / full_peak:.2f}",
        )
    table.caption = "\n".join([*ratios(options), *refused])
    return table


def ratios(options: Namespace) -> list[str]:
    """Step times of some methods over others', measured in turns."""
    found = []
    for names in RATIOS:
        steps = [step_of(name, options)[1] for name in names]
        one, other = interleaved(steps, options)
        found.append(f"{names[0]} takes {one / other:.2f} times {names[1]}'s step")
    return found


def step_of(name: str, options: Namespace) -> tuple[AdaptedModel, Callable[[], None]]:
    """The model of a row, and a training step on a padded batch of noise."""
    method, knobs = VARIANTS.get(name, (name, {}))
    model, _, step = whole_model(method, options, **knobs)
    size, device = options.batch_size, options.device
    samples = round(options.seconds * model.backbone.sample_rate)
    wavs = torch.randn(size, samples, device=device)
    lens = torch.linspace(1.0, SHORTEST, size)
    labels = torch.arange(size, device=device) % options.classes
    return model, lambda: step(wavs, labels, lens)


def whole_model(
    method: str, options: Namespace, **knobs: Any
) -> tuple[AdaptedModel, ClassificationHead, "Step"]:
    """A backbone with `method` and a head, and its training step."""
    backbone = load_backbone(options.source, max_duration=options.seconds)
    model = AdaptedModel(backbone, make_method(method, **knobs)).to(options.device)
    head = ClassificationHead(backbone.hidden_size, options.classes).to(options.device)
    return model, head, Step(model, head)


class Step:
    """One optimizer step of AdamW on what trains, and what the method does beside."""

    def __init__(self, model: AdaptedModel, head: nn.Module) -> None:
        self.model, self.head = model.train(), head
        self.both, self.taken = TaskModel(model, head), 0
        trained = [*model.trained_parameters().values(), *head.parameters()]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def __call__(
        self, wavs: Tensor, labels: Tensor, lens: Tensor | None = None
    ) -> None:
        logits = self.head(self.model(wavs, lens))
        self.learn(F.cross_entropy(logits, labels))

    def learn(self, loss: Tensor) -> None:
        loss.backward()
        self.both.before_step()
        self.optimizer.step()
        self.taken += 1
        self.both.after_step(self.taken, 3 * self.taken)  # as midway in training
        self.optimizer.zero_grad()


def interleaved(
    functions: Sequence[Callable[[], Any]], options: Namespace
) -> list[float]:
    """Median seconds of each function, measured in turns so that a disturbance of
    the machine meets them alike."""
    for function in functions:
        function()
    times = [[] for _ in functions]
    for _ in range(options.repeats):
        for function, own in zip(functions, times, strict=True):
            own.append(seconds_of(function, options))
    return [statistics.median(own) for own in times]


def seconds_of(function: Callable[[], Any], options: Namespace) -> float:
    """Wall-clock seconds of one call, the device's work included."""
    synchronize(options.device)
    start = time.perf_counter()
    function()
    synchronize(options.device)
    return time.perf_counter() - start


def synchronize(device: str | torch.device) -> None:
    """Wait until the device has done its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
