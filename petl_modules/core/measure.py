"""Peak memory, saved activations and waits for a device, measured."""

import ctypes
import gc
import resource
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

WAITED = "called a synchronizing CUDA operation"  # torch's warning


def reset_peak_memory(device: str | torch.device = "cpu") -> None:
    """Start a new measurement for `peak_memory_mib`."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        gc.collect()
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # glibc: give freed memory back first
        clear.write_text("5")  # Linux: sets the process's high-water mark back


def peak_memory_mib(device: str | torch.device = "cpu") -> float:
    """MiB at the peak since the last reset: allocated on a GPU, resident on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def saved_activations(module: nn.Module) -> Iterator[dict[str, int]]:
    """Count what autograd keeps for the backward pass.

    Yields
    ------
    dict
        `{"bytes": ...}`, complete after the block: every stored tensor once,
        without the module's parameters and buffers.
    """
    own = (*module.parameters(), *module.buffers())
    parameters = {tensor.untyped_storage().data_ptr() for tensor in own}
    seen, count = {}, {"bytes": 0}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself would keep its own graph for ever

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield count
    count["bytes"] = sum(seen.values())


@contextmanager
def host_waits(device: str | torch.device = "cpu") -> Iterator[Any]:
    """Note what makes the CPU wait for a device.

    On a GPU the driver's calls that wait are noted, on a CPU the operators that would:
    those that give a number to Python, or a shape that hangs on values.

    Yields
    ------
    list of str
    """
    if torch.device(device).type != "cuda":
        with _Waits() as waits:
            yield waits.found
        return
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # not the one that torch gives, once, about its watching itself
    found += [str(w.message) for w in caught if WAITED in str(w.message)]


class _Waits(TorchDispatchMode):
    aten = torch.ops.aten
    always = (
        aten._local_scalar_dense,
        aten.nonzero,
        aten.masked_select,
        aten._unique2,
        aten.equal,
    )
    with_masks = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)

    def __init__(self) -> None:
        super().__init__()
        self.found = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        packet = func.overloadpacket
        masks = packet in self.with_masks and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if packet in self.always or masks:
            self.found.append(str(func))
        return func(*args, **kwargs or {})
