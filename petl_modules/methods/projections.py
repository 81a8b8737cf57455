"""What methods share that act at projections: which ones, and updates of weights."""

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.core.access_points import LayerPoints, Projection
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.kinds import Items, Layers, Parts
from petl_modules.methods.base import Method

ALIASES = {"ffn": ("fc1", "fc2")}
Own = Literal["q", "k", "v", "o", "fc1", "fc2", "ffn"]
Cross = Literal["cross_q", "cross_k", "cross_v", "cross_o"]
Targets = Annotated[list[Literal[Own, Cross]], Items(1)]


class Update(nn.Module):
    """What adds to a projection's output, as a change of its weight would."""

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """What is added to `out`, which the projection gives of `x`: `(..., in)` to
        `(..., out)`."""
        raise NotImplementedError

    def onto(self, out: Tensor, x: Tensor) -> Tensor:
        """`out` with what is added."""
        return out + self(x, out)

    def delta(self) -> Tensor:
        """What is added to the weight, `(out, in)`."""
        raise NotImplementedError


def product_onto(out: Tensor, x: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
    """`out + B A x`, the sum within the second product: on a GPU that is one pass over
    `(..., out)` in the place of three."""
    a, b = factors
    narrow = F.linear(x, a).flatten(0, -2)
    return torch.addmm(out.flatten(0, -2), narrow, b.t()).view(out.shape)


class WeightUpdates(Method):
    """An `Update` at each of some projections.

    Attributes
    ----------
    targets : list of str
        The projections.
    updates : list of tuple
        Each projection with its module.
    """

    mergeable = True
    additive = True

    def __init__(
        self, targets: Any, layers: Layers | None = None, parts: Parts | None = None
    ) -> None:
        super().__init__(layers, parts)
        self.targets = expanded(targets)

    def update_of(self, place: Projection) -> Update:
        """The module for one projection."""
        raise UserError(f"The method {self.name} makes no updates.")

    def attach(self, model: AdaptedModel) -> None:
        self.updates = []
        for layer, target in chosen_projections(self, model, self.targets):
            place = layer.projections[target]
            update = model.add(self, layer, target, self.update_of(place))
            self.hook(layer, target, update)
            self.updates.append((place, update))

    def hook(self, layer: LayerPoints, site: str, module: Any) -> None:
        plain = not isinstance(module, Update)  # what serves several adapters at once

        def changed(x: Tensor, out: Tensor, mask: Tensor | None) -> Tensor:
            return out + module(x, out) if plain else module.onto(out, x)

        layer.projections[site].around(changed)

    @torch.no_grad()
    def merge(self, model: AdaptedModel) -> None:
        self.originals = [place.fold(update.delta()) for place, update in self.updates]

    def unmerge(self, model: AdaptedModel) -> None:
        for place, _ in reversed(self.updates):
            place.unfold(self.originals.pop())


def expanded(targets: Any) -> list[str]:
    """The projections that `targets` names, ffn as fc1 and fc2."""
    names = targets.split(",") if isinstance(targets, str) else targets
    names = [name.strip() for name in names]
    return [t for name in names for t in ALIASES.get(name, (name,))]


def chosen_projections(
    method: Method, model: AdaptedModel, targets: list[str]
) -> list[tuple[LayerPoints, str]]:
    """Every layer that a method touches with each of the projections that it has of
    those named.

    Raises
    ------
    UserError
        For a name that no layer has.
    """
    layers = method.chosen_layers(model)
    known = {name: None for layer in layers for name in layer.projections}
    for target in targets:
        if target not in known:
            raise UserError(
                f"targets={target} matches no projection of this backbone: choose "
                f"among {', '.join(known)}{' and ffn' if 'fc1' in known else ''}."
            )
    return [(layer, t) for layer in layers for t in targets if t in layer.projections]
