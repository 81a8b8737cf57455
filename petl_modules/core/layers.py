"""How the layers of an adapted model are run: compiled, or computed again."""

from typing import Any

import torch

from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.precision import can_be_held
from petl_modules.errors import UserError

RECOMPILE_LIMIT = 64  # graphs of one layer's code, where layers differ


def compile_layers(model: AdaptedModel, **options: Any) -> None:
    """Compile every Transformer layer with what is hooked into it.

    Layers that are alike share their graphs: one is made for the first length, one for
    all others, and again where padding is masked.

    Arguments
    ---------
    model : AdaptedModel
    **options
        For `torch.compile`.
    """
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    for points in model.parts.values():
        for layer in points.layers:
            layer.module.compile(**options)


def compute_layers_again(model: AdaptedModel) -> None:
    """Let the backward pass compute every layer again, instead of keeping what it
    needs of it.

    Raises
    ------
    UserError
        For a backbone that cannot.
    """
    if not can_be_held(model):
        raise UserError(
            f"gradient_checkpointing: {model.source} keeps what its layers compute."
        )
    model.backbone.checkpointing = True
