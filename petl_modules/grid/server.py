"""What the server of `grid.forks` imports, once for all its jobs.

Nothing is computed, so that it has no threads that a fork would lack, and CUDA's driver
is asked nothing: a fork of a process that has asked it can use no GPU. SpeechBrain asks
as it is imported whether there is one; torch answers from NVML where this variable says
so, and asks the driver all the same where there is no NVML.
"""

import os
from importlib import import_module

import torch

os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # a job has its own environment

for name in (  # what runs import, and what that imports in turn
    "petl_modules.train.start",
    "petl_modules.train.folds",
    "petl_modules.train.head_start",
    "petl_modules.tasks.pictures",
    "torch.utils.tensorboard",
):
    import_module(name)

HAS_GPU = torch.cuda.is_available()
