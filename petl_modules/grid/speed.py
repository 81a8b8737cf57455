"""Measure how fast the methods are, next to full fine-tuning and textbook forms.

`petl speed` prints, from one run: module by module, a mixture or
prefix against the form that one would write down first; the cached linear probe
against the uncached one; two adapters that serve one batch against switching between
them; and the step time and peak memory of every method on a whole backbone. Ratios
are of medians in this run, on this machine.
"""

import statistics
import tempfile
from argparse import Namespace

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from petl_modules.backbones.attention import attention_with_prefix
from petl_modules.console import Parser, above_zero, positive
from petl_modules.core.measure import (
    peak_memory_mib,
    reset_peak_memory,
    saved_activations,
)
from petl_modules.errors import UserError, known_device
from petl_modules.grid.steps import PEFT, rows, step_table
from petl_modules.grid.whole import interleaved, method_steps, seconds_of, whole_model
from petl_modules.methods import DenseMoA, SoftMoA
from petl_modules.use.adapter_file import save_adapter
from petl_modules.use.inference import Adapters, load_adapter

HEADS = 12  # of the attention with a prefix


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    options = parse(argv)
    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console()
    console.print(
        f"{options.device}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, batch {options.batch_size}, medians of "
        f"{options.repeats} runs"
    )
    if not options.only_steps:
        console.print(module_table(options))
        console.print(probe_table(options))
        console.print(adapters_table(options))
        console.print(method_steps(options))
    methods = options.methods.split(",")
    for batch_size in map(int, options.batches.split(",")):
        found = rows(methods, options.compile)
        chosen = [row for row in found if options.rows in row.name]
        console.print(step_table(options, batch_size, chosen))


class StackedMoA(nn.Module):
    """Dense-MoA as one writes it down: N adapters, N full-width outputs."""

    def __init__(self, hidden_size: int, num_adapters: int, rank: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(hidden_size, rank), nn.GELU(), nn.Linear(rank, hidden_size)
            )
            for _ in range(num_adapters)
        )
        self.router = nn.Linear(hidden_size, num_adapters)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.router(x).softmax(-1)
        outputs = torch.stack([expert(x) for expert in self.experts], -1)
        return (outputs * gates.unsqueeze(-2)).sum(-1)


class LoopedSoftMoA(SoftMoA):
    """Soft-MoA with a loop over its experts."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        logits = torch.einsum("btd,dnp->btnp", x, self.slots)
        dispatch = logits.softmax(1)
        combine = logits.flatten(2).softmax(-1).view_as(logits)
        output = torch.zeros_like(x)
        for n in range(self.slots.shape[1]):
            inputs = torch.einsum("btp,btd->bpd", dispatch[:, :, n], x)
            narrow = F.gelu(inputs @ self.down[n] + self.down_bias[n])
            slots = narrow @ self.up[n] + self.up_bias[n]
            output = output + torch.einsum("btp,bpd->btd", combine[:, :, n], slots)
        return output


class PrefixAttention(nn.Module):
    """One attention with 12 learned keys and values, fused or eager."""

    def __init__(self, hidden_size: int, fused: bool, heads: int = HEADS) -> None:
        super().__init__()
        self.prefix = nn.Parameter(torch.randn(2, 12, hidden_size) * 0.02)
        self.heads, self.fused, self.is_causal = heads, fused, False

    def forward(self, x: Tensor) -> Tensor:
        query = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scale = query.shape[-1] ** -0.5
        if self.fused:
            out, _ = attention_with_prefix(
                self, query, query, query, None, prefix=self.prefix, scaling=scale
            )
            return out.flatten(2)
        learned = self.prefix.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        learned = learned.unsqueeze(1).expand(-1, len(x), -1, -1, -1)
        keys, values = (torch.cat([part, query], 2) for part in learned)
        weights = (query @ keys.transpose(-1, -2) * scale).softmax(-1)
        return (weights @ values).transpose(1, 2).flatten(2)


def module_table(options: Namespace) -> Table:
    """Fast forms beside textbook forms, forward and backward."""
    size = (options.batch_size, options.tokens, options.hidden_size)
    d, n, r = options.hidden_size, options.num_adapters, options.rank
    pairs = {
        f"dense_moa, {n} experts": (DenseMoA(d, n, rank=r), StackedMoA(d, n, r)),
        f"soft_moa, {n} experts": (
            SoftMoA(d, n, rank=r),
            LoopedSoftMoA(d, n, rank=r),
        ),
        "prefix 24": (PrefixAttention(d, True), PrefixAttention(d, False)),
    }
    table = Table(
        "module", "ours ms", "textbook ms", "faster", "saved MiB", "textbook", "less"
    )
    table.title = f"Forward and backward of one module, input {size}"
    for name, modules in pairs.items():
        times, saved = [], []
        for module in modules:
            module.to(options.device)
            x = torch.randn(size, device=options.device, requires_grad=True)
            with saved_activations(module) as count:
                module(x).sum()
            saved.append(count["bytes"] / 2**20)
            times.append(lambda m=module, x=x: m(x).sum().backward())
        ours, theirs = interleaved(times, options)
        table.add_row(
            name,
            f"{ours * 1e3:.1f}",
            f"{theirs * 1e3:.1f}",
            f"{theirs / ours:.1f} x",
            f"{saved[0]:.1f}",
            f"{saved[1]:.1f}",
            f"{saved[1] / saved[0]:.1f} x",
        )
    return table


def probe_table(options: Namespace) -> Table:
    """Epochs of a linear probe, with and without cached features: one batch, as large
    as recipes/ESC50 trains a probe with."""
    model, head, step = whole_model("linear", options)
    clips = 4 * options.batch_size
    wavs = torch.randn(clips, round(options.seconds * 16000), device=options.device)
    labels = torch.arange(clips, device=options.device) % options.classes
    cache = []

    def uncached() -> None:
        step(wavs, labels)

    def cached() -> None:
        if not cache:
            with torch.no_grad():
                cache.extend(model.features(wavs, None, head))
        logits = model.head_from_features(*cache, head)
        step.learn(F.cross_entropy(logits, labels))

    uncached()
    every = seconds_of(uncached, options)
    first, later = seconds_of(cached, options), []
    later = [seconds_of(cached, options) for _ in range(options.repeats)]
    second = statistics.median(later)
    table = Table("epoch of a linear probe", "ms", "")
    table.title = f"{clips} clips of {options.seconds} s in one batch, {options.source}"
    table.add_row("uncached, every one", f"{every * 1e3:.1f}", "")
    table.add_row("cached, the first", f"{first * 1e3:.1f}", "")
    table.add_row(
        "cached, the others", f"{second * 1e3:.2f}", f"{first / second:.0f} x faster"
    )
    return table


def adapters_table(options: Namespace) -> Table:
    """Two adapters on one backbone: a batch that mixes them against switching for each
    clip, and the peak memory of two against that of one."""
    count = 4 * options.batch_size
    steps = [options.seconds * n / 5 for n in range(1, 6)]
    adapters, peaks = two_adapters(options, torch.randn(count, 16000))
    names = ["bottleneck", "lora"] * (count // 2)
    table = Table("clips of", "switching ms", "mixed ms", "", "largest difference")
    table.title = (
        f"{count} clips of two adapters, bottleneck and lora, {options.source}"
    )
    for kinds in (steps[:1], steps[2:3], steps):
        lengths = (kinds * count)[:count]
        clips = [torch.randn(round(16000 * length)) for length in lengths]
        wavs = pad_sequence(clips, batch_first=True)
        lens = torch.tensor(lengths) / max(lengths)

        def mixed(wavs: Tensor = wavs, lens: Tensor = lens) -> Tensor:
            return adapters.classify_batch(wavs, lens, names)

        def switching(clips: list[Tensor] = clips) -> list[Tensor]:
            answers = []
            for name, clip in zip(names, clips, strict=True):
                adapters.use(name)
                answers += adapters.classify_batch(clip.unsqueeze(0))
            return answers

        pairs = zip(mixed(), switching(), strict=True)
        difference = max(float((a - b).abs().max()) for a, b in pairs)
        together, apart = interleaved([mixed, switching], options)
        table.add_row(
            " to ".join(f"{end:g} s" for end in dict.fromkeys((kinds[0], kinds[-1]))),
            f"{apart * 1e3:.0f}",
            f"{together * 1e3:.0f}",
            f"{apart / together:.1f} x faster",
            f"{difference:.0e}",
        )
    one, two = peaks
    table.caption = f"peak MiB: one adapter {one:.0f}, two {two:.0f}, {two / one:.2f} x"
    return table


def two_adapters(options: Namespace, clips: Tensor) -> tuple[Adapters, list[float]]:
    """Adapters of two methods on one backbone, and the peak memory of the first alone
    and of both mixed, in MiB."""
    labels = [str(label) for label in range(options.classes)]
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for method in ("bottleneck", "lora"):
            model, head, _ = whole_model(method, options)
            with torch.no_grad():  # what starts at zero would add nothing
                for parameter in model.trained_parameters().values():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
            save_adapter(f"{folder}/{method}", model, head, {"labels": labels})
        del model, head
        reset_peak_memory(options.device)
        path = f"{folder}/bottleneck"
        adapters = load_adapter(path, "bottleneck", device=options.device)
        adapters.classify_batch(clips)
        peaks.append(peak_memory_mib(options.device))
        reset_peak_memory(options.device)
        adapters.add(f"{folder}/lora", "lora")
    names = ["bottleneck", "lora"] * (len(clips) // 2)
    adapters.classify_batch(clips, adapters=names)
    peaks.append(peak_memory_mib(options.device))
    return adapters, peaks


def parse(argv: list[str] | None) -> Namespace:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, help="Where to compute (%(default)s).")
    add("--threads", type=above_zero, help="CPU threads of torch.")
    source = "The backbone of whole steps: a folder or hub id (%(default)s)."
    add("--source", default="embedded", help=source)
    add("--seconds", type=positive, default=5.0, help="Of a clip (%(default)s).")
    for name, default, what in (
        ("batch_size", 8, "Clips in a batch"),
        ("tokens", 590, "Tokens of a single module's input"),
        ("hidden_size", 768, "Width of a single module's input"),
        ("num_adapters", 7, "Experts of a mixture"),
        ("rank", 6, "Width of an expert"),
        ("classes", 10, "Classes of the head"),
        ("repeats", 10, "Runs that a median is taken of"),
        ("warmup", 3, "Steps before steps are timed"),
    ):
        help = f"{what} (%(default)s)."
        add(f"--{name}", type=above_zero, default=default, help=help)
    add("--batches", default="8", help="Sizes of whole steps' batches (%(default)s).")
    methods = f"full,linear,bottleneck,conformer,lora,{PEFT}"
    add("--methods", default=methods, help="Of whole steps (%(default)s).")
    add("--rows", default="", help="Only whole steps with this in their names.")
    add("--compile", action="store_true", help="Whether steps are compiled too.")
    add("--random", action="store_true", help="Random weights; source may be a family.")
    add("--only_steps", action="store_true", help="Whole steps alone.")
    options = parser.parse_args(argv)
    known_device(options.device)
    if options.hidden_size % HEADS:
        raise UserError(
            f"--hidden_size={options.hidden_size} must be a multiple of {HEADS}, the "
            "heads of the attention."
        )
    return options
