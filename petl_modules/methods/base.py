"""What all methods share: the contract of a method, and small helpers."""

from typing import Any

from torch import Tensor

from petl_modules.core.access_points import AccessPoints, LayerPoints
from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.kinds import Layers, Parts


class Method:
    """A way to adapt a frozen backbone.

    A method is a recipe for `petl_modules.core.adapted.AdaptedModel`: it says which
    tensors train and where new modules go, and knows no backbone.

    Attributes
    ----------
    name : str
        Set by `make_method`; part of the names of the tensors.
    knobs : dict
        The settings, JSON-able; with the name they rebuild the method.
    layers : list of int or None
        The layers that the method touches, None for all of them.
    parts : list of str or None
        The parts that it touches, encoder or decoder, None for all that there are.
    mergeable : bool
        Whether it can be folded into the backbone's weights.
    stuck : str
        Why not, where it cannot.
    additive : bool
        Whether a module that gives zeros changes nothing.
    form : tuple
        What tells two ways apart in which methods of one name hook a module in.
    reads_weights : bool
        Whether its modules read weights of the backbone past what unpacks them.
    written_over : bool
        Whether what its tensors begin as will be written over by saved ones: what is
        costly to find need not be found then.
    """

    name = "method"
    mergeable = False
    stuck = "its modules are no part of a linear projection"
    additive = False
    form = ()
    reads_weights = False
    written_over = False
    module = None  # the class that it puts in, where it is always the same

    def __init__(
        self, layers: Layers | None = None, parts: Parts | None = None
    ) -> None:
        self.layers, self.parts = layers, parts
        self.knobs = {}

    def attach(self, model: AdaptedModel) -> None:
        """Put modules in and switch gradients on.

        Arguments
        ---------
        model : AdaptedModel
            Offers `parts`, `points`, `silent_inputs`, `add`, `train_norm`,
            `train_parameter` and `train_backbone`.
        """
        raise UserError(f"The method {self.name} has no attach function.")

    def hook(self, layer: LayerPoints, site: str, module: Any) -> None:
        """Let a module act at a site of a layer.

        Arguments
        ---------
        layer : LayerPoints
        site : str
            One of those that `attach` chose.
        module : torch.nn.Module
            Built by `attach`, or one that takes its place.
        """
        raise UserError(f"The method {self.name} hooks nothing in.")

    def training_state(self, model: AdaptedModel) -> dict[str, Tensor]:
        """What only training knows, and its checkpoints keep, by name; not copies."""
        del model
        return {}

    def before_step(self) -> None:
        """Add to the gradients of a step, before they are clipped."""

    def after_step(self, step: int, steps: int) -> None:
        """Change what trains when a step is made; its gradients are still there.

        Arguments
        ---------
        step : int
            How many are made.
        steps : int
            Of the whole training.
        """

    def merge(self, model: AdaptedModel) -> None:
        """Fold the method's modules into the backbone's weights."""

    def unmerge(self, model: AdaptedModel) -> None:
        """Undo `merge`, bit by bit."""

    def chosen_parts(self, model: AdaptedModel) -> list[AccessPoints]:
        """The access points of the parts that `parts` names."""
        parts = model.parts
        if self.parts is None:
            return list(parts.values())
        chosen = self.parts if isinstance(self.parts, list | tuple) else [self.parts]
        if not chosen or any(name not in list(parts) for name in chosen):
            raise UserError(
                f"parts={list(chosen)} does not fit: {model.source} has as "
                f"parts {' and '.join(parts)} here."
            )
        return [points for name, points in parts.items() if name in chosen]

    def chosen_layers(self, model: AdaptedModel) -> list[LayerPoints]:
        """The access points of the layers that `layers` names, in each of the parts."""
        parts = self.chosen_parts(model)
        return [layer for part in parts for layer in self._layers_of(part.layers)]

    def _layers_of(self, points: list[LayerPoints]) -> list[LayerPoints]:
        count = len(points)
        if self.layers is None:
            return points
        chosen = [self.layers] if isinstance(self.layers, int) else list(self.layers)
        wrong = [i for i in chosen if not isinstance(i, int) or not -count <= i < count]
        if wrong or not chosen:
            raise UserError(
                f"layers={chosen} does not fit a backbone of {count} layers: give a "
                f"list of numbers from 0 to {count - 1} (or -{count} to -1)."
            )
        return [points[i] for i in sorted({i % count for i in chosen})]


def bottleneck_width(hidden_size: int, rank: int | None, reduction_rate: float) -> int:
    """Width r of a bottleneck: `rank`, or else `round(hidden_size / reduction_rate)`.

    Example
    -------
    >>> bottleneck_width(768, None, 64), bottleneck_width(768, 6, 64)
    (12, 6)
    """
    if rank is None:
        if not reduction_rate > 0:
            raise UserError(f"reduction_rate={reduction_rate} must be above 0.")
        rank = max(1, round(hidden_size / reduction_rate))
    if not isinstance(rank, int) or rank < 1:
        raise UserError(f"rank={rank} must be a whole number of at least 1.")
    return rank
