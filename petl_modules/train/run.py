"""One run: train and test a fold, or go on with it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from rich.console import Console
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.distributed import (
    ddp_barrier,
    ddp_broadcast,
    if_main_process,
)

from petl_modules.console import once
from petl_modules.core.counts import counts, effective, table
from petl_modules.core.measure import peak_memory_mib, reset_peak_memory
from petl_modules.data import Prepared, make_manifests
from petl_modules.data.datasets import batching, make_datasets
from petl_modules.errors import UserError
from petl_modules.files import digest, listing, write_text
from petl_modules.knobs import filled
from petl_modules.train.brain import PetlBrain
from petl_modules.train.built import Built
from petl_modules.train.checkpoints import Belongs, Counter, WholeCheckpointer
from petl_modules.train.config import Config
from petl_modules.train.journal import Journal, wandb_logger
from petl_modules.train.provenance import commit, versions
from petl_modules.train.refusals import refuse_shared_clips
from petl_modules.train.results import (
    CHECKPOINTS,
    HARMLESS,
    HPARAMS,
    remove_checkpoints,
    write_results,
)
from petl_modules.train.speedups import speed_up
from petl_modules.use.adapter_file import save_adapter

NEVER = sys.maxsize  # as many validations without a better one


def run_one(
    prepare: Callable, config: Config, folder: Path, show_table: bool
) -> dict[str, Any]:
    """Train and test one fold, or go on with it; returns its results."""
    from petl_modules.train.head_start import give_head_start

    prepared = on_main(manifests, prepare, config, folder / "data")
    refuse_shared_clips(prepared)
    classes = None if prepared.labels is None else len(prepared.labels)
    if "num_classes" in config.given and config["num_classes"] != classes:
        raise UserError(
            f"num_classes={config['num_classes']}, but the data has {classes} classes: "
            "a run counts them itself."
        )
    config = config.replace(num_classes=classes, labels=prepared.labels)
    built = Built.of(config)
    model, head = built.model, built.head
    if if_main_process() and show_table:
        Console().print(table(model, head, config["method"]))
    seconds, judge_start, opening = 0.0, False, {}
    if built.training.head_start_epochs and not model.frozen_below_head:
        start = folder / "head_start"
        seconds, found = give_head_start(config, prepared, start, model, head)
        opening = {"head start": {f"valid {name}": v for name, v in found.items()}}
        judge_start = built.training.head_start_counts
    brain, sets = trained(built, prepared, folder, judge_start, opening)
    if if_main_process():  # not before checkpoints of other settings are refused
        sizes = effective(model).items()
        used = "".join(f"# {key}: {value} was used\n" for key, value in sizes)
        write_text(folder / HPARAMS, used + config.text())
    epochs = brain.counter.current  # evaluating goes back to the best one
    metrics = {}
    for split in ("valid", "test") if built.experiment.test else ("valid",):
        metrics[split] = evaluated(brain, built, sets[split])
        if split == "valid":
            brain.task.decide()
    result = {
        "recipe": config["recipe"],
        "dataset": config["dataset"],
        "task": config.get("task", brain.task.name),
        "method": config["method"],
        "backbone": str(config["source"]),
        "fold": config["fold"],
        "seed": config["seed"],
        "few_shot": config["few_shot"],
        "metrics": metrics,
        "head_start": opening.get("head start"),
        "parameters": parameters(model, head),
        "effective": effective(model),
        "seconds": round(seconds + brain.seconds.total, 2),
        "peak_memory_mib": round(peak_memory_mib(brain.device), 1),
        "epochs": epochs,
        "steps": brain.plan.done_after(epochs),
        "best_epoch": brain.counter.current,
        "computed_in": brain.computed_in,
        "clips": {split: len(dataset) for split, dataset in sets.items()},
        "left_out": prepared.broken,
        "versions": versions(),
        "commit": commit(),
    }
    if if_main_process():
        brain.task.write(folder)
        kept = ("recipe", "dataset", "task", "metrics", "effective")
        info = brain.task.facts() | {key: result[key] for key in kept}
        save_adapter(folder, model, head, {"labels": prepared.labels, **info})
        write_results(folder, result)
    brain.journal.close(result)
    ddp_barrier()  # others may read the checkpoints still
    if if_main_process():
        remove_checkpoints(folder)
        brain.task.draw(folder, brain.journal.figure)
    return result


def trained(
    built: Built,
    prepared: Prepared,
    folder: Path,
    judge_start: bool = False,
    opening: dict[str, dict] | None = None,
    lines: bool = True,
) -> tuple[PetlBrain, dict]:
    """Train, or go on with it; returns the Brain and the data sets.

    Arguments
    ---------
    built : Built
    prepared : Prepared
    folder : Path
        Of the run.
    judge_start : bool
        Whether the model as it starts counts as epoch 0.
    opening : dict or None
        What the log begins with beside the settings.
    lines : bool
        Whether every epoch gets a line on the console.
    """
    brain = make_brain(built, prepared, folder, opening, lines)
    brain.computed_in = speed_up(built.model, built.machine, brain.device)
    if built.same_sound:
        built.model.backbone.remember(built.loading.audio_cache_mib)
    reset_peak_memory(brain.device)
    sets = make_datasets(
        prepared,
        brain.task,
        built.model,
        built.head,
        built.loading,
        brain.device,
        built.feature_folder,
        built.clip_folder,
        progress=not built.machine.noprogressbar,
    )
    seed = built.experiment.seed
    loader = batching(built.loading, sets["train"], brain.task, seed, shuffle=True)
    train = brain.make_dataloader(sets["train"], sb.Stage.TRAIN, **loader)
    loader = batching(built.loading, sets["valid"], brain.task, seed)
    brain.fit(brain.counter, train, sets["valid"], loader, judge_start)
    return brain, sets


def evaluated(
    brain: PetlBrain, built: Built, dataset: DynamicItemDataset
) -> dict[str, float]:
    """The metrics of the best epoch, or of the mean of the best, on a data set."""
    seed = built.experiment.seed
    loader = batching(built.loading, dataset, brain.task, seed)
    brain.evaluate(dataset, min_key="error", test_loader_kwargs=loader)
    return brain.metrics


# Helpers


def manifests(prepare: Callable, config: Config, folder: Path) -> Prepared:
    """The manifests of one fold, in `folder`."""
    settings = config.settings()
    splits, labels = prepare(**filled(prepare, settings))
    shots, seed = settings["few_shot"], settings["seed"]
    skip, draw = settings["skip_broken"], settings["few_shot_draw"]
    return make_manifests(folder, splits, labels, shots, seed, skip, draw)


def make_brain(
    built: Built,
    prepared: Prepared,
    folder: Path,
    opening: dict[str, dict] | None = None,
    lines: bool = True,
) -> PetlBrain:
    """The Brain with its task, counter, journal and checkpointer."""
    task = built.make_task(prepared.labels)
    journal = Journal(folder, {"settings": built.told, **(opening or {})})
    journal.others += task.loggers(folder, journal.events)
    if built.experiment.wandb:
        journal.others.append(wandb_logger(built.values, folder))
    return PetlBrain(
        task=task,
        task_model=built.make_task_model(built.model, built.head),
        counter=Counter(
            built.training.number_of_epochs, built.training.patience or NEVER
        ),
        journal=journal,
        lines=lines,
        # SpeechBrain's own compile would take the whole model at once
        hparams={**built.values, "compile": False},
        opt_class=built.make_optimizer,
        checkpointer=WholeCheckpointer(
            folder / CHECKPOINTS, belongs=belongs(built, prepared)
        ),
    )


def belongs(built: Built, prepared: Prepared) -> Belongs:
    """What the checkpoints of a run belong to: settings, clips as they are now, and the
    backbone's weights."""
    settings = {k: v for k, v in built.values.items() if k not in HARMLESS}
    splits = {}
    for split in ("train", "valid", "test"):
        entries = json.loads(getattr(prepared, split).read_text(encoding="utf-8"))
        clips = listing(entry["wav"] for entry in entries.values())
        splits[split] = digest([entries, clips, prepared.labels])
    return Belongs(settings, splits, built.model.backbone.fingerprint())


def parameters(model: Any, head: torch.nn.Module) -> dict[str, int]:
    """The numbers of parameters that results.json holds."""
    found = counts(model, head)
    norms = found["site_norms"] + found["last_norm"]
    return {
        "petl": found["petl"],
        "norms": norms,
        "head": found["head"],
        "backbone": found["backbone"],
    }


def on_main(function: Callable, *args: Any) -> Any:
    """The function's value, computed by the main process first where there are
    several, so that the others find what it left on disk; what it refuses all do."""
    if not torch.distributed.is_initialized():
        return function(*args)
    value, refused = None, None
    if if_main_process():
        try:
            value = function(*args)
        except UserError as error:
            refused = str(error)
    refused = ddp_broadcast(refused, src=0)
    if refused is not None:
        with once():
            raise UserError(refused)
    return value if if_main_process() else function(*args)
