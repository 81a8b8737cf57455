"""What a run writes down as it goes: train_log.txt, TensorBoard, and Weights & Biases
where that is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from speechbrain.utils.distributed import if_main_process, main_process_only
from speechbrain.utils.train_logger import (
    FileTrainLogger,
    TensorboardLogger,
    TrainLogger,
    WandBLogger,
)

from petl_modules.files import digest

LOG = "train_log.txt"
Facts = Mapping[str, Any]


class Journal(TrainLogger):
    """A run's loggers as one.

    Arguments
    ---------
    folder : Path
        Of the run.
    opening : dict
        What the log begins with: facts by their title, such as settings.
    others : list of TrainLogger
        Which are told of every epoch too.
    """

    def __init__(
        self,
        folder: Path,
        opening: Mapping[str, Facts] | None = None,
        others: list[TrainLogger] | None = None,
    ) -> None:
        self.path, self.opening = folder / LOG, dict(opening or {})
        self.file = FileTrainLogger(str(self.path), precision=4)
        # on every process: SpeechBrain's loggers wait for one another
        self.events = Events(str(folder / "tensorboard"))
        self.others = list(others or [])

    def begin(self) -> None:
        """Write the opening, unless an interrupted run did."""
        if not if_main_process():
            return
        text = "".join(f"{title}: {told(f)}\n" for title, f in self.opening.items())
        known = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        if text not in known:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(text)
        for title, facts in self.opening.items():
            rows = "\n".join(f"    {key}: {value}" for key, value in facts.items())
            self.events.writer.add_text(title, rows, 0)

    def log_stats(self, stats_meta: dict[str, Any], **stats: Any) -> None:
        """What SpeechBrain's loggers are told of an epoch."""
        for logger in (self.file, self.events, *self.others):
            logger.log_stats(stats_meta, **stats)

    def close(self, result: Mapping[str, Any]) -> None:
        """Write what came out, as results.json has it; with the settings, so that
        TensorBoard can compare runs by them."""
        if not if_main_process():
            return
        found = {
            f"{split} {metric}": value
            for split, metrics in result["metrics"].items()
            for metric, value in metrics.items()
        }
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(f"result of epoch {result['best_epoch']}: {told(found)}\n")
        settings = {
            key: value
            for key, value in self.opening.get("settings", {}).items()
            if isinstance(value, bool | int | float | str)
        }
        values = {f"result/{name}": value for name, value in found.items()}
        self.events.writer.add_hparams(settings, values, run_name=".")

    def figure(self, name: str, figure: Figure) -> None:
        """Show a picture among the events."""
        if if_main_process():
            self.events.writer.add_figure(name, figure, close=False)
            self.events.writer.flush()


class Events(TensorboardLogger):
    """SpeechBrain's logger, whose steps are epochs: a run that was interrupted goes on
    in its curves."""

    @main_process_only
    def log_stats(
        self,
        stats_meta: dict[str, Any],
        train_stats: Facts | None = None,
        valid_stats: Facts | None = None,
        test_stats: Facts | None = None,
        verbose: bool = False,
    ) -> None:
        """What is known of an epoch, of number `stats_meta["epoch"]`."""
        del verbose
        epoch = stats_meta["epoch"]
        for name, value in stats_meta.items():
            self.writer.add_scalar(name, value, epoch)
        parts = {"train": train_stats, "valid": valid_stats, "test": test_stats}
        for split, stats in parts.items():
            for name, value in (stats or {}).items():
                self.writer.add_scalar(f"{name}/{split}", value, epoch)


def wandb_logger(values: dict[str, Any], folder: Path) -> WandBLogger:
    """A logger to Weights & Biases, which goes on with a run that was interrupted.

    Arguments
    ---------
    values : dict
        All settings of the run.
    folder : Path
        Of the run.
    """
    import wandb

    return WandBLogger(
        wandb.init,
        project=values["wandb_project"],
        entity=values["wandb_entity"],
        tags=values["wandb_tags"],
        group=f"{values['recipe']} {values['method']}",
        name=values["wandb_name"] or folder.name,
        id=digest(str(folder))[:16],
        resume="allow",
        reinit="finish_previous",
        mode=values["wandb"],
        dir=str(folder),
        config={k: v for k, v in values.items() if isinstance(v, str | int | float)},
    )


# Helpers


def told(facts: Facts) -> str:
    """Facts on one line; what is not set is not there."""
    return ", ".join(
        f"{key}: {value:.6g}" if isinstance(value, float) else f"{key}: {value}"
        for key, value in facts.items()
        if value is not None
    )
