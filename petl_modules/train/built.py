"""What a run is built of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from petl_modules.core.adapted import AdaptedModel
from petl_modules.data.augmentation import OFF
from petl_modules.data.loading import Loading
from petl_modules.errors import UserError
from petl_modules.tasks.heads import CTCHead
from petl_modules.train.config import Config
from petl_modules.train.settings import Experiment, Machine, Training


@dataclass(frozen=True)
class Built:
    """A config's objects, and its knobs by section.

    Attributes
    ----------
    values : dict
        Every knob's value by name, those of the recipe too.
    model : AdaptedModel
    head : torch.nn.Module
    make_task : callable
        From labels to a `petl_modules.tasks.Task`.
    make_task_model : callable
        From model and head to a `TaskModel`.
    make_optimizer : callable
        From parameter groups to an optimizer.
    """

    values: dict[str, Any]
    model: AdaptedModel
    head: nn.Module
    make_task: Callable
    make_task_model: Callable
    make_optimizer: Callable

    @classmethod
    def of(cls, config: Config) -> "Built":
        """Build a config's objects; a UserError for a head that they do not suit."""
        objects = config.objects()
        refuse_head(objects["model"].backbone, objects["head"])
        return cls(
            config.settings(),
            objects["model"],
            objects["head"],
            objects["objective"],
            objects["task_model"],
            objects["opt_class"],
        )

    @cached_property
    def experiment(self) -> Experiment:
        """What is run."""
        return Experiment.of(self.values)

    @cached_property
    def loading(self) -> Loading:
        """How clips are read."""
        return Loading.of(self.values)

    @cached_property
    def training(self) -> Training:
        """How it is trained."""
        return Training.of(self.values)

    @cached_property
    def machine(self) -> Machine:
        """On what it runs."""
        return Machine.of(self.values)

    @property
    def told(self) -> dict[str, Any]:
        """The settings that a person reads: what is set, but for long lists."""
        long = ("labels", "run_folder", "own_data")
        return {
            key: value
            for key, value in self.values.items()
            if value not in (None, {}, []) and key not in long
        }

    @property
    def cache_folder(self) -> Path:
        """Of what is kept for other runs."""
        return Path(self.loading.cache_folder or self.experiment.output_folder)

    @property
    def clip_folder(self) -> Path:
        """Where decoded clips are kept that memory has no room for."""
        return self.cache_folder / "audio_cache"

    @property
    def same_sound(self) -> bool:
        """Whether the backbone hears a clip in every epoch as in the first."""
        waveform = {k: off for k, off in OFF.items() if not k.startswith("spec")}
        return all(self.values.get(knob, off) == off for knob, off in waveform.items())

    @property
    def feature_folder(self) -> Path | None:
        """Where the head's features are kept, if no knob changes them from epoch to
        epoch."""
        steady = all(self.values.get(knob, off) == off for knob, off in OFF.items())
        if not (steady and self.loading.feature_cache):
            return None
        own = "" if self.loading.channel == "mean" else f"_{self.loading.channel}"
        return self.cache_folder / f"feature_cache{own}"


def refuse_head(backbone: Any, head: Any) -> None:
    """Raise a UserError for a head that reads what a backbone does not give: layers of
    one size, or steps of time that are a clip's."""
    sizes = sorted({layer.hidden_size for layer in backbone.points.layers})
    if len(sizes) > 1 and getattr(head, "weighted_sum", False):
        raise UserError(
            f"The layers of {backbone.source} have tokens of several sizes "
            f"({', '.join(map(str, sizes))}), which weighted_sum and layer_adapters "
            "cannot add up: leave them out."
        )
    if isinstance(head, CTCHead) and not backbone.keeps_time:
        raise UserError(
            f"{backbone.source} hears a clip again and again until its time is full, "
            "and so cannot spell it: take another backbone for text."
        )
