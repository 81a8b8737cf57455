"""A recipe's command line: `train.py HPARAMS [--key=value ...]`."""

import os
import sys
from collections.abc import Callable

from petl_modules.console import once, quiet, refusing


def run_recipe(prepare: Callable, argv: list[str] | None = None) -> None:
    """Run a recipe's command line.

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
    with refusing():
        if not {"--help", "-h"}.isdisjoint(argv):
            from petl_modules.train.help import show_help

            show_help(prepare, [a for a in argv if a not in ("--help", "-h")])
            return
        if not argv or argv[0].startswith("--"):
            sys.exit(
                "usage: python train.py HPARAMS [--key=value ...]\n"
                "       python train.py --help"
            )
        run_command(prepare, argv[0], argv[1:])


def run_command(prepare: Callable, path: str, arguments: list[str]) -> None:
    """Check a command line, then run what it asks for."""
    from petl_modules.train import refusals
    from petl_modules.train.config import load_config, refuse_unread
    from petl_modules.train.labels import with_own_folder

    with once():
        config = with_own_folder(load_config(path, arguments, prepare), prepare)
        config = refusals.with_full_paths(config)
        refuse_unread(config, prepare)
        refusals.refuse_folds(config)
        refusals.refuse_device(config)
        refusals.refuse_workers(config)
        refusals.refuse_unasked_trust(config)
        refusals.refuse_wandb(config)
    if config["processes"] > 1 and "RANK" not in os.environ:
        from petl_modules.train.launch import run_together

        command = [sys.executable, *sys.argv[:1], path, *arguments]
        sys.exit(run_together(command, config["processes"]))
    if "RANK" in os.environ:
        from speechbrain.utils.distributed import ddp_init_group

        ddp_init_group(config.settings())
    from petl_modules.train.folds import run_folds

    run_folds(prepare, config)
