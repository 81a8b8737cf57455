"""A head start: the head and the last LayerNorm begin as a linear probe's."""

import logging
from pathlib import Path

from torch import nn

from petl_modules.core.adapted import AdaptedModel
from petl_modules.data import Prepared
from petl_modules.data.augmentation import OFF
from petl_modules.methods import method_knobs
from petl_modules.train.built import Built
from petl_modules.train.config import Config
from petl_modules.train.run import evaluated, trained

logger = logging.getLogger(__name__)


def give_head_start(
    config: Config,
    prepared: Prepared,
    folder: Path,
    model: AdaptedModel,
    head: nn.Module,
) -> tuple[float, dict[str, float]]:
    """Let the head and the last LayerNorm start from a linear probe's.

    A head that knows nothing sends noise into the first steps of everything below
    it, which on little data costs the features that were good (Kumar et al., arXiv
    2202.10054). With cached features the probe costs next to nothing; the seconds
    that it took are returned, and its validation metrics. With `head_start_counts` it
    is epoch 0 of what follows: no model comes out that was worse on the validation set
    than the probe.
    """
    probe = Built.of(probe_of(config))
    brain, sets = trained(probe, prepared, folder, lines=False)
    metrics = evaluated(brain, probe, sets["valid"])
    metric = brain.task.metric
    logger.info(
        "Head start: a linear probe with valid %s %.4f.", metric, metrics[metric]
    )
    head.load_state_dict(probe.head.state_dict())
    norm = model.points.last_norm
    if norm is not None:
        norm.load_state_dict(probe.model.points.last_norm.state_dict())
    return brain.seconds.total, metrics


def probe_of(config: Config) -> Config:
    """The config of the linear probe that a run starts from."""
    changes = {knob: off for knob, off in OFF.items() if knob in config.knobs}
    if config.get("pooling") == "prompts":  # a probe has none to read
        changes["pooling"] = "all"
    return config.replace(
        **changes,
        **dict.fromkeys(method_knobs()),
        method="linear",
        lr=config["head_start_lr"],
        number_of_epochs=config["head_start_epochs"],
        number_of_steps=None,
        evaluate_every=None,
        scheduler="cosine",
        warmup_steps=None,
        choose="best",
        patience=None,
        noprogressbar=True,
        wandb=None,
    )
