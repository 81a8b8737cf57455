"""A recipe's run: folds, what is left on disk, and the summary."""

import inspect
import json
import logging
import os
import platform
import shutil
import statistics
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import speechbrain as sb
import torch
from rich.console import Console
from rich.table import Table
from speechbrain.utils.epoch_loop import EpochCounterWithStopper
from speechbrain.utils.train_logger import (
    FileTrainLogger,
    TensorboardLogger,
    WandBLogger,
)

from petl_modules.console import quiet, refusing
from petl_modules.core.counts import counts, table
from petl_modules.core.measure import peak_memory_mib, reset_peak_memory
from petl_modules.data import make_manifests
from petl_modules.data.augmentation import OFF
from petl_modules.data.datasets import batching, make_datasets
from petl_modules.errors import Damaged, UserError, known_device, one_of
from petl_modules.files import digest, write_json, write_text
from petl_modules.methods import method_table
from petl_modules.train.brain import PetlBrain
from petl_modules.train.checkpoints import WholeCheckpointer
from petl_modules.train.config import load_config, refuse_unread
from petl_modules.use.adapter_file import save_adapter

logger = logging.getLogger(__name__)

HPARAMS, RESULTS, SUMMARY = "hyperparams.yaml", "results.json", "summary.json"
CHECKPOINTS = "checkpoints"
# What every results.json has
COMPLETE = ("metrics", "parameters", "seconds", "peak_memory_mib", "epochs")
PACKAGES = ("torch", "torchaudio", "speechbrain", "transformers", "petl-modules")

# Settings that do not change what a run computes
HARMLESS = {
    "output_folder",
    "run_folder",
    "folds",
    "num_classes",
    "labels",
    "device",
    "num_workers",
    "audio_cache_mib",
    "noprogressbar",
    "ckpt_interval_minutes",
    "ckpt_interval_steps",
    "distributed_backend",
    "wandb",
}
# Settings that may be folders or files
PATHS = (
    "data_folder",
    "source",
    "lexicon",
    "language_model",
    "vocoder",
    "asr",
    "speaker_encoder",
)


def run_recipe(prepare, argv=None):
    """Run a recipe's command line: `train.py HPARAMS [--key=value ...]`.

    Arguments
    ---------
    prepare : callable
        Reads a data set's layout and returns the splits and labels that
        `petl_modules.data.make_manifests` takes. Its arguments are filled by name
        from the config.
    argv : list of str or None
        The command line's arguments; None for the program's own.
    """
    quiet()
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0].startswith("--"):
        sys.exit("usage: python train.py HPARAMS [--key=value ...]")
    with refusing():
        config = with_full_paths(load_config(argv[0], argv[1:]))
        refuse_unread(config, inspect.signature(prepare).parameters)
        refuse_device(config)
        refuse_wandb(config)
        if "RANK" in os.environ:
            sb.utils.distributed.ddp_init_group(config.settings())
        run_folds(prepare, config)


def run_folds(prepare, config):
    """All folds, or the one that `fold` names; returns their results.

    Folds that are done are not run again; with all of them, a summary is written
    and printed.
    """
    folds = config["folds"]
    chosen = [config["fold"]] if config["fold"] is not None or not folds else folds
    if folds and not set(chosen) <= set(folds):
        raise UserError(f"fold={config['fold']} is none of the folds {list(folds)}.")
    results = []
    for place, fold in enumerate(chosen):
        folder = run_folder(config, fold)
        if len(chosen) > 1:
            logger.info("\nFold %s (%d of %d)", fold, place + 1, len(chosen))
        run = config.replace(fold=fold, run_folder=str(folder))
        result = finished(run, folder)
        if result is None:
            result = run_one(prepare, run, folder, show_table=place == 0)
        else:
            logger.info("Done already: %s", folder / RESULTS)
        results.append(result)
        report(result, folder)
    if len(results) > 1 and config["test"] and sb.utils.distributed.if_main_process():
        summarise(config, results)
    return results


def run_one(prepare, config, folder, show_table):
    """Train and test one fold, or go on with it; returns its results."""
    prepared = on_main(manifests, prepare, config, folder / "data")
    classes = None if prepared.labels is None else len(prepared.labels)
    if "num_classes" in config.given and config["num_classes"] != classes:
        raise UserError(
            f"num_classes={config['num_classes']}, but the data has {classes} classes: "
            "a run counts them itself."
        )
    config = config.replace(num_classes=classes, labels=prepared.labels)
    built = config.build()
    model, head = built["model"], built["head"]
    folder.mkdir(parents=True, exist_ok=True)
    if sb.utils.distributed.if_main_process():
        write_text(folder / HPARAMS, config.text())
        if show_table:
            Console().print(table(model, head, config["method"]))
    seconds, judge_start = 0.0, False
    if config["head_start_epochs"] and not model.frozen_below_head:
        start = folder / "head_start"
        seconds = give_head_start(config, prepared, start, model, head)
        judge_start = config["head_start_counts"]
    brain, sets = trained(built, prepared, folder, judge_start)
    epochs = brain.counter.current  # evaluating goes back to the best one
    metrics = {}
    for split in ("valid", "test") if built["test"] else ("valid",):
        loader = batching(built, sets[split], brain.task)
        brain.evaluate(sets[split], min_key="error", test_loader_kwargs=loader)
        metrics[split] = brain.metrics
    result = {
        "recipe": built["recipe"],
        "dataset": built["dataset"],
        "task": built.get("task", brain.task.name),
        "method": built["method"],
        "backbone": str(built["source"]),
        "fold": built["fold"],
        "seed": built["seed"],
        "few_shot": built["few_shot"],
        "metrics": metrics,
        "parameters": parameters(model, head),
        "seconds": round(seconds + brain.seconds.total, 2),
        "peak_memory_mib": round(peak_memory_mib(brain.device), 1),
        "epochs": epochs,
        "best_epoch": brain.counter.current,
        "left_out": prepared.broken,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        "commit": commit(),
    }
    if sb.utils.distributed.if_main_process():
        brain.task.write(folder)
        info = {k: result[k] for k in ("recipe", "dataset", "task", "metrics")}
        save_adapter(folder, model, head, {"labels": prepared.labels, **info})
        write_json(folder / RESULTS, result)  # last: its presence says all is there
        for checkpoints in folder.glob("**/checkpoints"):  # were for going on
            shutil.rmtree(checkpoints)
    return result


def manifests(prepare, config, folder):
    """The manifests of one fold, in `folder`."""
    settings = config.settings()
    given = {name: settings[name] for name in inspect.signature(prepare).parameters}
    splits, labels = prepare(**given)
    shots, seed = settings["few_shot"], settings["seed"]
    return make_manifests(folder, splits, labels, shots, seed, settings["skip_broken"])


def trained(built, prepared, folder, judge_start=False):
    """Train, or go on with it; returns the Brain and the data sets."""
    brain = make_brain(built, prepared, folder)
    reset_peak_memory(brain.device)
    sets = make_datasets(built, prepared, brain.task, brain.device)
    loader = batching(built, sets["train"], brain.task, shuffle=True)
    train = brain.make_dataloader(sets["train"], sb.Stage.TRAIN, **loader)
    loader = batching(built, sets["valid"], brain.task)
    brain.fit(brain.counter, train, sets["valid"], loader, judge_start)
    return brain, sets


def give_head_start(config, prepared, folder, model, head):
    """Let the head and the last LayerNorm start from a linear probe's.

    A head that knows nothing sends noise into the first steps of everything below
    it, which on little data costs the features that were good (Kumar et al., arXiv
    2202.10054). With cached features the probe costs next to nothing; the seconds
    that it took are returned. With `head_start_counts` it is epoch 0 of what follows:
    no model comes out that was worse on the validation set than the probe.
    """
    knobs = {key: None for entry in method_table().values() for key in entry["knobs"]}
    probe = config.replace(
        **knobs,
        **OFF,
        method="linear",
        # a probe has no prompts to read
        pooling="all" if config["pooling"] == "prompts" else config["pooling"],
        lr=config["head_start_lr"],
        number_of_epochs=config["head_start_epochs"],
        patience=None,
        noprogressbar=True,
        wandb=None,
    ).build()
    folder.mkdir(parents=True, exist_ok=True)
    brain, sets = trained(probe, prepared, folder)
    loader = batching(probe, sets["valid"], brain.task)
    brain.evaluate(sets["valid"], min_key="error", test_loader_kwargs=loader)
    reached = brain.task.metric, brain.metrics[brain.task.metric]
    logger.info("Head start: a linear probe with valid %s %.4f.", *reached)
    head.load_state_dict(probe["head"].state_dict())
    norm = model.points.last_norm
    norm.load_state_dict(probe["model"].points.last_norm.state_dict())
    return brain.seconds.total


def make_brain(built, prepared, folder):
    """The Brain with its task, counter, loggers and checkpointer."""
    patience = built["patience"] or built["number_of_epochs"] + 1
    # on every process: SpeechBrain's loggers wait for one another
    tensorboard = TensorboardLogger(str(folder / "tensorboard"))
    task = built["objective"](prepared.labels)
    loggers = [
        FileTrainLogger(str(folder / "train_log.txt"), precision=4),
        tensorboard,
        *task.loggers(folder, tensorboard),
    ]
    if built["wandb"]:
        loggers.append(wandb_logger(built, folder))
    return PetlBrain(
        task=task,
        task_model=built["task_model"](built["model"], built["head"]),
        counter=EpochCounterWithStopper(
            built["number_of_epochs"], patience, limit_warmup=0, direction="min"
        ),
        loggers=loggers,
        hparams=built,
        opt_class=built["opt_class"],
        checkpointer=WholeCheckpointer(folder / CHECKPOINTS),
    )


def wandb_logger(built, folder):
    """A logger to Weights & Biases, which goes on with a run that was interrupted."""
    import wandb

    return WandBLogger(
        wandb.init,
        project="petl",
        group=f"{built['recipe']} {built['method']}",
        name=folder.name,
        id=digest(str(folder))[:16],
        resume="allow",
        reinit="finish_previous",
        mode=built["wandb"],
        dir=str(folder),
        config={k: v for k, v in built.items() if isinstance(v, str | int | float)},
    )


def finished(config, folder):
    """The results of a run that is done, or None; refuses a run of other settings."""
    theirs, path = folder / HPARAMS, folder / RESULTS
    begun = path.exists() or any((folder / CHECKPOINTS).glob("CKPT*"))
    if not begun or not theirs.exists():
        return None
    ours = config.settings()
    for key, value in load_config(theirs).settings().items():
        if key not in HARMLESS and ours.get(key) != value:
            raise UserError(
                f"{folder} holds a run with {key}={value}, now it is {ours.get(key)}: "
                "choose another --output_folder, or delete that one."
            )
    return read_results(path)


def read_results(path):
    """A run's results, or None if there are none.

    Raises
    ------
    Damaged
        If they are not complete.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        complete = set(COMPLETE) <= set(result)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        complete = False
    if not complete:
        raise Damaged(f"{path} is damaged: delete it to run this again.")
    return result


def report(result, folder):
    """Say how a run ended and where it is."""
    for split, metrics in result["metrics"].items():
        text = ", ".join(f"{k} {v:.4f}" for k, v in metrics.items())
        logger.info("%-6s%s", split, text)
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    logger.info("%s: %s", folder, ", ".join(files))


def summarise(config, results):
    """Write and print mean and standard deviation over the folds."""
    tests = [result["metrics"]["test"] for result in results]
    summary = {
        "method": config["method"],
        "folds": [result["fold"] for result in results],
        "test": {
            key: {
                "mean": statistics.mean(test[key] for test in tests),
                "std": statistics.stdev(test[key] for test in tests),
            }
            for key in tests[0]
        },
        "valid": {
            key: statistics.mean(result["metrics"]["valid"][key] for result in results)
            for key in tests[0]
        },
        "parameters": results[0]["parameters"],
        "seconds": round(sum(result["seconds"] for result in results), 1),
    }
    folder = run_folder(config, None).parent
    write_json(folder / f"{run_name(config, 'all_folds')}_{SUMMARY}", summary)
    shown = Table(
        title=f"{config['dataset']}, {config['method']}", title_justify="left"
    )
    shown.add_column("fold")
    keys = list(tests[0])
    for key in keys:
        shown.add_column(f"test {key}", justify="right")
    for result in results:
        values = [f"{result['metrics']['test'][key]:.4f}" for key in keys]
        shown.add_row(str(result["fold"]), *values)
    shown.add_section()
    for name in ("mean", "std"):
        shown.add_row(name, *(f"{summary['test'][key][name]:.4f}" for key in keys))
    Console().print(shown)


# Helpers


def run_folder(config, fold):
    """Where a fold's run goes: output_folder/method/fold and seed, and a folder for
    the task before them where a recipe has several."""
    prefix = "run" if fold is None else f"fold{fold}"
    home = Path(config["output_folder"]) / config.tree.get("task", "")
    return home / config["method"] / run_name(config, prefix)


def run_name(config, prefix):
    """Name of a run within its method's folder."""
    shots = "" if config["few_shot"] is None else f"_shot{config['few_shot']}"
    return f"{prefix}_seed{config['seed']}{shots}"


def refuse_device(config):
    """Raise a UserError for a device, precision or backend that is not here."""
    device = known_device(config["device"])
    on_cpu = device == "cpu" or (device is None and not torch.cuda.is_available())
    choices = ("fp32", "bf16") if on_cpu else ("fp32", "bf16", "fp16")
    for key in ("precision", "eval_precision"):
        if config[key] not in choices:
            raise UserError(f"{key}={config[key]}: choose {' or '.join(choices)} here.")
    if "RANK" in os.environ and on_cpu and config["distributed_backend"] != "gloo":
        raise UserError(
            "Several processes on a CPU need --distributed_backend=gloo --device=cpu."
        )


def refuse_wandb(config):
    """Raise a UserError for a logger that is not here."""
    if config["wandb"] is None:
        return
    one_of("wandb", config["wandb"], ("online", "offline"))
    if find_spec("wandb") is None:
        raise UserError(
            f"--wandb={config['wandb']} needs the package wandb: pip install wandb."
        )
    import wandb

    if config["wandb"] == "online" and not wandb.login(prompt=False):
        raise UserError("Log in to Weights & Biases first (wandb login).")


def with_full_paths(config):
    """The config with absolute paths, so that a saved one runs from anywhere."""
    paths = {"output_folder": str(Path(config["output_folder"]).resolve())}
    for key in PATHS:
        value = config.tree.get(key)
        if value is not None and Path(str(value)).exists():
            paths[key] = str(Path(value).resolve())
    return config.replace(**paths)


def parameters(model, head):
    """The numbers of parameters that results.json holds."""
    found = counts(model, head)
    norms = found["site_norms"] + found["last_norm"]
    return {
        "petl": found["petl"],
        "norms": norms,
        "head": found["head"],
        "backbone": found["backbone"],
    }


def on_main(function, *args):
    """The function's value, computed by the main process first where there are
    several, so that the others find what it left on disk."""
    if not torch.distributed.is_initialized():
        return function(*args)
    value = function(*args) if sb.utils.distributed.if_main_process() else None
    torch.distributed.barrier()
    return value if value is not None else function(*args)


def commit():
    """The project's commit, or None where there is no repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
