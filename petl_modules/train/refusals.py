"""What a run refuses before it begins, beside values out of their range."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

from petl_modules.data.manifests import Prepared
from petl_modules.errors import UserError
from petl_modules.train.config import Config

# Settings that may be folders or files
PATHS = (
    "data_folder",
    "data",
    "clip_folder",
    "trials",
    "source",
    "lexicon",
    "language_model",
    "vocoder",
    "asr",
    "speaker_encoder",
)


def with_full_paths(config: Config) -> Config:
    """The config with absolute paths, so that a saved one runs from anywhere."""
    paths = {"output_folder": str(Path(config["output_folder"]).resolve())}
    for key in PATHS:
        value = config.get(key)
        if value is not None and os.path.exists(str(value)):
            paths[key] = str(Path(value).resolve())
    return config.replace(**paths)


def refuse_folds(config: Config) -> None:
    """Raise a UserError for a fold that the protocol does not have."""
    fold, folds = config["fold"], config["folds"]
    if fold is not None and not folds:
        raise UserError(f"--fold={fold}: {config.path} has no folds.")
    if fold is not None and fold not in folds:
        raise UserError(f"fold={fold} is none of the folds {list(folds)}.")


def refuse_shared_clips(prepared: Prepared) -> None:
    """Raise a UserError where training hears a clip that it is judged by."""
    clips = {}
    for split in ("train", "valid", "test"):
        entries = json.loads(getattr(prepared, split).read_text(encoding="utf-8"))
        clips[split] = {entry["wav"] for entry in entries.values()}
    for split in ("valid", "test"):
        if shared := sorted(clips["train"] & clips[split]):
            raise UserError(
                f"{len(shared)} of the {len(clips[split])} {split} clips are training "
                f"clips too, such as {shared[0]}: the sets must have none in common."
            )


def refuse_device(config: Config) -> None:
    """Raise a UserError for a device, precision or backend that is not here."""
    import torch

    from petl_modules.errors import known_device

    device = known_device(config["device"])
    on_cpu = device == "cpu" or (device is None and not torch.cuda.is_available())
    choices = ("fp32", "bf16") if on_cpu else ("fp32", "bf16", "fp16")
    for key in ("precision", "eval_precision"):
        if config[key] not in choices:
            raise UserError(f"{key}={config[key]}: choose {' or '.join(choices)} here.")
    together = "RANK" in os.environ or config["processes"] > 1
    if together and on_cpu and config["distributed_backend"] != "gloo":
        raise UserError(
            "Several processes on a CPU need --distributed_backend=gloo --device=cpu."
        )
    if together and not on_cpu:
        refuse_shared_gpus(config)


def refuse_shared_gpus(config: Config) -> None:
    """Raise a UserError where processes that train together would meet on a GPU."""
    import torch

    device, nccl = config["device"], config["distributed_backend"] == "nccl"
    if device is not None and nccl:
        raise UserError(
            f"device={device}: of several processes each takes a GPU of its own. Leave "
            "it out; CUDA_VISIBLE_DEVICES says which GPUs there are."
        )
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", config["processes"]))
    gpus = torch.cuda.device_count()
    if device is None and processes > gpus:
        raise UserError(
            f"{processes} processes need a GPU each, and there "
            f"{'is 1' if gpus == 1 else f'are {gpus}'} here: lower --processes."
        )


def refuse_workers(config: Config) -> None:
    """Raise a UserError for more threads than this machine can feed."""
    most = max(8, 2 * (os.cpu_count() or 1))
    if (config["num_workers"] or 0) > most:
        raise UserError(
            f"num_workers={config['num_workers']} is more than this machine of "
            f"{os.cpu_count()} cores can use: at most {most}."
        )


def refuse_unasked_trust(config: Config) -> None:
    """Raise a UserError where a yaml allows code to be run: who runs it must, since
    a saved config may come from anywhere."""
    if config.get("trust_code") and "trust_code" not in config.given:
        raise UserError(
            f"{config.path} says trust_code, which counts on the command line alone: "
            "give --trust_code=True if you trust the folders that it names."
        )


def refuse_wandb(config: Config) -> None:
    """Raise a UserError for a logger that is not here."""
    if config["wandb"] is None:
        return
    if find_spec("wandb") is None:
        raise UserError(
            f"--wandb={config['wandb']} needs the package wandb: pip install wandb."
        )
    import wandb

    if config["wandb"] == "online" and not wandb.login(prompt=False):
        raise UserError("Log in to Weights & Biases first (wandb login).")
