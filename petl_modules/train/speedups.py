"""What makes training faster or smaller, as the knobs of the machine say."""

import logging
from typing import Any

import torch
from speechbrain.utils.distributed import if_main_process

from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.layers import compile_layers, compute_layers_again
from petl_modules.core.precision import base_precision, can_be_held, hold_base
from petl_modules.core.quantised import KINDS
from petl_modules.train.settings import Machine

logger = logging.getLogger(__name__)


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
    hold_and_tell(model, base)
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


def hold_and_tell(model: AdaptedModel, base: str) -> None:
    """Hold the frozen base, and say of a packed one what that saves and changes."""
    if base not in KINDS:
        hold_base(model, base)
        return
    size, tokens = stored_mib(model), tokens_of_noise(model)
    hold_base(model, base)
    drift = (tokens_of_noise(model) - tokens).norm() / tokens.norm()
    if if_main_process():
        logger.info(
            "The frozen base takes %.1f MiB in %s, %.1f in float32; what it makes of "
            "noise differs by %.2f %% of its length.",
            stored_mib(model),
            base,
            size,
            100 * float(drift),
        )


def stored_mib(model: AdaptedModel) -> float:
    """Mebibytes of a backbone's tensors where it runs, each once."""
    tensors = (*model.backbone.parameters(), *model.backbone.buffers())
    stored = {s.data_ptr(): s.nbytes() for t in tensors for s in [t.untyped_storage()]}
    return sum(stored.values()) / 2**20


@torch.no_grad()
def tokens_of_noise(model: AdaptedModel) -> torch.Tensor:
    """What a model in eval mode makes of a clip of noise, always the same."""
    backbone, training = model.backbone, model.training
    seconds = min(1.0, backbone.max_duration or 1.0)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, round(seconds * backbone.sample_rate), generator=generator)
    device = next(backbone.parameters()).device
    tokens = model.eval()(0.1 * noise.to(device)).hidden
    model.train(training)
    return tokens
