"""What makes training faster or smaller, as the knobs of the machine say."""

from typing import Any

import torch

from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.layers import compile_layers, compute_layers_again
from petl_modules.core.precision import base_precision, can_be_held, hold_base
from petl_modules.train.settings import Machine


def speed_up(
    model: AdaptedModel, machine: Machine, device: torch.device | str
) -> dict[str, Any]:
    """Prepare a model on its device for training.

    Returns
    -------
    dict
        What the numbers of a run were computed in, for its results: precision, base,
        tf32.

    Raises
    ------
    UserError
        For a backbone that cannot do what is asked.
    """
    on_gpu = torch.device(device).type == "cuda"
    base, asked = machine.base_precision, machine.base_precision is not None
    if not asked:
        wide = machine.precision != "bf16" or not on_gpu
        base = "fp32" if wide or not can_be_held(model) else "bf16"
    hold_base(model, base)
    if on_gpu:  # SpeechBrain has switched it on
        torch.backends.cuda.matmul.allow_tf32 = machine.tf32
        torch.backends.cudnn.allow_tf32 = machine.tf32
    if machine.gradient_checkpointing:
        compute_layers_again(model)
    if machine.compile:
        compile_layers(model)
    return {
        "precision": machine.precision,
        "base_precision": base_precision(model),
        "tf32": on_gpu and machine.tf32,
    }
