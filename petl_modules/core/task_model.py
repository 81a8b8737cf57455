"""An adapted model and its head as one module: what a Brain trains and checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from torch import Tensor, nn

from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.tensors import check_same_tensors


@register_checkpoint_hooks
class TaskModel(nn.Module):
    """Waveforms to a head's output; checkpoints hold what trains and nothing else.

    Arguments
    ---------
    model : AdaptedModel
    head : torch.nn.Module
        Maps `Tokens` to the task's output.
    """

    def __init__(self, model: AdaptedModel, head: nn.Module) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(
        self,
        wavs: Tensor | None = None,
        wav_lens: Tensor | None = None,
        features: tuple[Tensor, Tensor] | None = None,
        **inputs: Any,
    ) -> Any:
        """The head's output, from waveforms (and what else the backbone reads) or from
        cached `AdaptedModel.features`."""
        if features is not None:
            return self.model.head_from_features(*features, self.head)
        layers = self.head.weighted_sum
        return self.head(self.model(wavs, wav_lens, all_layers=layers, **inputs))

    def parameter_groups(self, decay_all: bool = False) -> list[dict[str, Any]]:
        """What trains, as optimizer groups: decayed, and spared from weight decay.

        Arguments
        ---------
        decay_all : bool
            Spare nothing.
        """
        named = self.model.trained_parameters()
        decays = {n: decay_all or self.model.decays(n, p) for n, p in named.items()}
        for name, parameter in self.head.named_parameters():
            named[f"head.{name}"] = parameter
            decays[f"head.{name}"] = decay_all or parameter.ndim > 1
        groups: list[dict[str, Any]] = [
            {"params": [p for n, p in named.items() if decays[n]]},
            {"params": [p for n, p in named.items() if not decays[n]]},
        ]
        groups[1]["weight_decay"] = 0.0
        return [group for group in groups if group["params"]]

    def state(self) -> dict[str, Tensor]:
        """All tensors that training changes, by name, and those that only training
        knows; not copies."""
        head = {f"head.{n}": t for n, t in self.head.state_dict().items()}
        known = {
            f"training.{name}": tensor
            for method in self.model.methods
            for name, tensor in method.training_state(self.model).items()
        }
        return {**self.model.trained_state(), **head, **known}

    def before_step(self) -> None:
        """Let the methods add to the gradients of a step."""
        for method in self.model.methods:
            method.before_step()

    def after_step(self, step: int, steps: int) -> None:
        """Let the methods change what trains, after step `step` of `steps`."""
        for method in self.model.methods:
            method.after_step(step, steps)

    @mark_as_saver
    def _save(self, path: str | Path) -> None:
        tensors = {n: t.detach().cpu().contiguous() for n, t in self.state().items()}
        save_file(tensors, path)

    @mark_as_loader
    def _load(self, path: str | Path, end_of_epoch: bool) -> None:
        del end_of_epoch
        self.load_state(load_file(path), f"the checkpoint {path}")

    def load_state(self, saved: Mapping[str, Tensor], where: str = "the model") -> None:
        """Put back what `state` gave; `where` it is from, for a complaint."""
        check_same_tensors(self.state(), saved, where)
        with torch.no_grad():
            for name, tensor in self.state().items():
                tensor.copy_(saved[name])
