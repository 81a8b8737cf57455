"""Peak memory and saved activations, measured."""

import ctypes
import gc
import resource
from contextlib import contextmanager, suppress
from pathlib import Path

import torch


def reset_peak_memory(device="cpu"):
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


def peak_memory_mib(device="cpu"):
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
def saved_activations(module):
    """Count what autograd keeps for the backward pass.

    Yields
    ------
    dict
        `{"bytes": ...}`, complete after the block: every stored tensor once,
        without the module's parameters.
    """
    parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
    seen, count = {}, {"bytes": 0}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield count
    count["bytes"] = sum(seen.values())
