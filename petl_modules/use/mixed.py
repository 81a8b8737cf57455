"""Adapted models of one backbone as one: each clip of a batch goes through its own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from petl_modules.backbones import Backbone
from petl_modules.core.access_points import Site
from petl_modules.core.adapted import AdaptedModel
from petl_modules.methods.gathered import GATHERED


def can_mix(model: AdaptedModel) -> bool:
    """Whether `MixedModel` can serve an adapted model: bottlenecks and LoRA that are
    added to what is frozen, and trained LayerNorms."""
    modules = all(
        type(module) in GATHERED and model.places[name][0].additive
        for name, module in model.petl.items()
    )
    norms = {p for norm in norms_of(model.backbone) for p in norm.parameters()}
    return modules and model.backbone_tensors().keys() <= norms


class MixedModel:
    """Several adapted models of one backbone, in one pass.

    Wherever one of them has a module or a trained LayerNorm, those of all act together,
    each on its own clips; a model that has nothing there adds zeros, or has the
    pretrained norm. The backbone itself runs once, whatever the models are.

    Arguments
    ---------
    backbone : Backbone
        With its pretrained tensors.
    models : list of AdaptedModel
        Of that backbone; each one `can_mix`.
    tensors : list of dict
        For each model its trained tensors of the backbone, by parameter.

    Attributes
    ----------
    clips : torch.Tensor
        Each clip's model, as its place in `models`, `(batch,)`; to be set before the
        backbone runs.
    tensors : dict
        What the backbone's parameters must hold while it runs.
    """

    def __init__(
        self, backbone: Backbone, models: list[AdaptedModel], tensors: list[dict]
    ) -> None:
        self.clips: Any = None
        self.tensors: dict[torch.Tensor, torch.Tensor] = {}
        backbone.serve(self)
        for method, layer, site, modules in places_of(models):
            method.hook(layer, site, self._of_the_clip(modules))
        trained = set().union(*tensors)
        for norm in norms_of(backbone):
            if not trained.isdisjoint(norm.parameters()):
                self._gather_norm(backbone.points, norm, tensors)
        backbone.serve(None)

    def _of_the_clip(self, modules: list[nn.Module | None]) -> Callable:
        kind = next(type(module) for module in modules if module is not None)
        gathered = GATHERED[kind](modules)
        return lambda x, *more: gathered(x, self.clips, *more)

    def _gather_norm(
        self, points: Any, norm: nn.LayerNorm, tensors: list[dict]
    ) -> None:
        def of_each(parameter: torch.Tensor) -> torch.Tensor:
            values = [own.get(parameter, parameter.data) for own in tensors]
            return torch.stack(values).unsqueeze(1)

        weight = of_each(norm.weight)
        bias = torch.zeros_like(weight) if norm.bias is None else of_each(norm.bias)
        self.tensors[norm.weight] = torch.ones_like(norm.weight.data)
        if norm.bias is not None:
            self.tensors[norm.bias] = torch.zeros_like(norm.bias.data)
        Site(points.hooks, norm).around(
            lambda z, normal, mask: torch.addcmul(
                bias[self.clips], normal, weight[self.clips]
            )
        )


def places_of(models: list[AdaptedModel]) -> list[tuple]:
    """`(method, layer, site, modules)` of every place, with each model's module or
    None; in an order that is that of every model's own methods."""
    places = {}
    for i, model in enumerate(models):
        for name, module in model.petl.items():
            method, layer, site = model.places[name]
            turn = model.methods.index(method)
            key = turn, name, method.form, getattr(module, "act", None)
            nowhere = [None] * len(models)
            *_, modules = places.setdefault(key, (method, layer, site, nowhere))
            modules[i] = module
    return [places[key] for key in sorted(places, key=lambda key: key[0])]


def norms_of(backbone: nn.Module) -> list[nn.LayerNorm]:
    """Its LayerNorms that have weights."""
    return [
        module
        for module in backbone.modules()
        if isinstance(module, nn.LayerNorm) and module.elementwise_affine
    ]
