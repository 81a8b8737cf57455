"""What the server of `grid.forks` imports, once for all its jobs.

Nothing is computed, so that it has no threads that a fork would lack, and CUDA's driver
is asked nothing: a fork of a process that has asked it can use no GPU. SpeechBrain asks
as it is imported whether there is one.
"""

import os
from importlib import import_module

import torch

# What runs import, and what that imports in turn
IMPORTED = (
    "petl_modules.train.start",
    "petl_modules.train.folds",
    "petl_modules.train.head_start",
    "petl_modules.tasks.pictures",
    "torch.utils.tensorboard",
)
# By which torch asks NVML in the driver's place, where there is NVML
NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"


def import_all() -> bool:
    """Import it; returns whether there is a GPU."""
    before = os.environ.get(NVML)
    os.environ[NVML] = "1"
    try:
        for name in IMPORTED:
            import_module(name)
        return torch.cuda.is_available()
    finally:
        os.environ.pop(NVML)
        if before is not None:
            os.environ[NVML] = before


HAS_GPU = import_all()
