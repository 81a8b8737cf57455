"""Training steps of whole backbones, as fast as the device allows: `petl speed`."""

import copy
import gc
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils.flop_counter import FlopCounterMode

from petl_modules.backbones import Backbone, load_backbone
from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.layers import compile_layers
from petl_modules.core.measure import (
    host_waits,
    peak_memory_mib,
    reset_peak_memory,
    saved_activations,
)
from petl_modules.core.precision import hold_base
from petl_modules.core.quantised import KINDS
from petl_modules.core.task_model import TaskModel
from petl_modules.errors import UserError
from petl_modules.methods import make_method
from petl_modules.tasks.heads import ClassificationHead

PEFT = "PEFT's lora"
COUNTED = 2  # clips whose operations are counted
WHY = 100  # characters of what went wrong
SHORTEST = 0.6  # of a padded batch's clips, relative to the longest


@dataclass(frozen=True)
class Row:
    """One way to train.

    Attributes
    ----------
    method : str
        A method, or `PEFT` for that library's LoRA on the same backbone.
    precision : str
        fp32, or bf16 for autocast.
    base : str
        What the frozen base is held in.
    compiled : bool
    padded : bool
        Whether clips are of different lengths.
    """

    method: str
    precision: str = "fp32"
    base: str = "fp32"
    compiled: bool = False
    padded: bool = False

    @property
    def name(self) -> str:
        """What it is called in the table."""
        precision = self.precision
        if self.precision == "bf16":
            precision = "autocast" if self.base == "fp32" else f"{self.base} base"
        extras = [", compiled"] * self.compiled + [", padded"] * self.padded
        return f"{self.method}, {precision}{''.join(extras)}"


@dataclass(frozen=True)
class Measured:
    """What a row costs: seconds, bytes, floating-point operations; `host`: seconds
    until the CPU has asked for a step's work, which no device can go below."""

    seconds: float
    host: float
    peak_mib: float
    saved_mib: float
    flops: int
    waits: int
    breaks: int


def rows(methods: list[str], compiled: bool) -> list[Row]:
    """What is measured of every method: fp32, autocast, a held base, padding, and a
    packed base where there is the library for it."""
    packed = KINDS if find_spec("bitsandbytes") else ()
    found = []
    for method in methods:
        found += [Row(method), Row(method, "bf16")]
        if method == "full":
            continue
        held = Row(method, "bf16", "bf16")
        found.append(held)
        if method != PEFT:
            found.append(replace(held, padded=True))
            found += [replace(held, base=kind) for kind in packed]
            if compiled:
                found.append(replace(held, compiled=True))
    return found


def step_table(options: Namespace, batch_size: int, chosen: list[Row]) -> Table:
    """A training step of every row, on one backbone."""
    peak = matrix_peak(options.device)
    table = Table(
        "training step",
        "ms",
        "host ms",
        "clips/s",
        "TFLOP",
        "of peak",
        "peak MiB",
        "saved MiB",
        "host waits",
        "graph breaks",
    )
    table.title = (
        f"{options.source}, batch {batch_size}, clips of {options.seconds} s, "
        f"{device_name(options.device)}, whose products run at {peak / 1e12:.1f} "
        "TFLOP/s"
    )
    for row in chosen:
        gc.collect()  # graphs that a row before kept in cycles
        if torch.device(options.device).type == "cuda":
            torch.cuda.empty_cache()
        try:
            found = measured(row, options, batch_size)
        except (RuntimeError, UserError) as error:  # such as out of memory: others fit
            why = str(error).splitlines()[0][:WHY]
            print(f"{row.name}: {type(error).__name__}: {why}", flush=True)
            table.add_row(row.name, type(error).__name__)
            continue
        print(f"{row.name}: {found.seconds * 1e3:.1f} ms", flush=True)
        table.add_row(
            row.name,
            f"{found.seconds * 1e3:.1f}",
            f"{found.host * 1e3:.1f}",
            f"{batch_size / found.seconds:.0f}",
            f"{found.flops / 1e12:.2f}",
            f"{100 * found.flops / found.seconds / peak:.0f} %",
            f"{found.peak_mib:.0f}",
            f"{found.saved_mib:.1f}",
            str(found.waits),
            str(found.breaks) if row.compiled else "",
        )
    return table


def measured(row: Row, options: Namespace, batch_size: int) -> Measured:
    """Build what a row names, and measure its steps back to back."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    reset_peak_memory(options.device)
    step = Step(row, options, batch_size)
    for _ in range(options.warmup):
        step()
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    synchronize(options.device)
    reset_peak_memory(options.device)
    seconds, host = [], []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(options.repeats):
            step()
        synchronize(options.device)
        seconds.append((time.perf_counter() - began) / options.repeats)
        began = time.perf_counter()  # of one step, as a device's queue is bounded
        step()
        host.append(time.perf_counter() - began)
        synchronize(options.device)
    peak = peak_memory_mib(options.device)
    with host_waits(options.device) as waits:
        step()
    saved = 0
    if not row.compiled:
        with saved_activations(step.model) as count:
            loss = step.loss()
        saved = count["bytes"]
        del loss
    del step
    # of a small batch: they grow with it, and the counter keeps what it counts
    few = min(COUNTED, batch_size)
    flops = Step(replace(row, compiled=False), options, few).flops() * batch_size // few
    return Measured(
        statistics.median(seconds),
        min(host),
        peak,
        saved / 2**20,
        flops,
        len(waits),
        breaks,
    )


class Step:
    """Forward, loss, backward, clipping and AdamW of a row, and what its method does
    beside them, on waveforms that lie on the device, with lengths on the CPU as a
    recipe's batches have them."""

    def __init__(self, row: Row, options: Namespace, batch_size: int) -> None:
        self.row, self.device = row, options.device
        backbone = copy.deepcopy(
            loaded(options.source, not options.random, options.seconds)
        )
        method = "linear" if row.method == PEFT else row.method
        self.model = AdaptedModel(backbone, make_method(method)).to(self.device)
        trained = list(self.model.trained_parameters().values())
        if row.method == PEFT:
            trained += with_peft(backbone.model, row, options)
        else:
            hold_base(self.model, row.base)
        if row.compiled:
            compile_layers(self.model)
        head = ClassificationHead(backbone.hidden_size, options.classes)
        self.head = head.to(self.device)
        self.both, self.taken = TaskModel(self.model, self.head), 0
        self.trained = [*trained, *head.parameters()]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=True)
        samples = round(options.seconds * backbone.sample_rate)
        self.wavs = torch.randn(batch_size, samples, device=self.device) * 0.1
        least = SHORTEST if row.padded else 1.0
        self.lens = torch.linspace(1.0, least, batch_size)
        labels = torch.arange(batch_size, device=self.device)
        self.labels = labels % options.classes
        self.model.train(), self.head.train()

    def loss(self) -> Tensor:
        """The loss of the batch."""
        kind = torch.device(self.device).type
        narrow = self.row.precision == "bf16"
        with torch.autocast(kind, torch.bfloat16) if narrow else nullcontext():
            logits = self.head(self.model(self.wavs, self.lens))
        return F.cross_entropy(logits.float(), self.labels)

    def __call__(self) -> None:
        self.loss().backward()
        self.both.before_step()
        clip_grad_norm_(self.trained, 5.0)
        self.optimizer.step()
        self.taken += 1
        self.both.after_step(self.taken, 3 * self.taken)  # as midway in training
        self.optimizer.zero_grad()

    def flops(self) -> int:
        """Floating-point operations of a step's products."""
        with FlopCounterMode(display=False) as counter:
            self()
        gc.collect()  # the counter keeps the step's graph in a cycle
        return counter.get_total_flops()


@cache
def loaded(source: str, pretrained: bool, seconds: float) -> Backbone:
    """A backbone, loaded once."""
    backbone = load_backbone(source, pretrained=pretrained, max_duration=seconds)
    backbone.fingerprint()
    return backbone


def with_peft(model: torch.nn.Module, row: Row, options: Namespace) -> list:
    """Put PEFT's LoRA into a model; returns what it trains."""
    from peft import LoraConfig, inject_adapter_in_model

    if row.base == "bf16":
        frozen = (p for p in model.parameters() if not p.requires_grad)
        for parameter in frozen:
            parameter.data = parameter.data.to(torch.bfloat16)
    before = {id(p) for p in model.parameters()}
    settings = LoraConfig(
        r=options.rank, lora_alpha=options.rank, target_modules=["q_proj", "v_proj"]
    )
    inject_adapter_in_model(settings, model)
    added = [p for p in model.parameters() if id(p) not in before and p.requires_grad]
    for parameter in added:  # as get_peft_model has them beside a narrow base
        parameter.data = parameter.data.float()
    return added


def matrix_peak(device: str) -> float:
    """Floating-point operations a second of large products, bf16 on a GPU."""
    on_gpu = torch.device(device).type == "cuda"
    size = 8192 if on_gpu else 768
    dtype = torch.bfloat16 if on_gpu else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / fastest(lambda: a @ b, device)


def fastest(function: Callable, device: str, times: int = 10) -> float:
    """Seconds of the fastest of several calls."""
    found = []
    for _ in range(times):
        synchronize(device)
        began = time.perf_counter()
        function()
        synchronize(device)
        found.append(time.perf_counter() - began)
    return min(found)


def synchronize(device: str) -> None:
    """Wait until the device has done its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: str) -> str:
    """The card's name, or cpu and its threads."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device} with {torch.get_num_threads()} threads"
