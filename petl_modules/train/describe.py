"""What would train, without data: `petl describe HPARAMS [--key=value ...] [--json]`.

Prints a table of what trains, of which rank, and how many parameters it has, or with
--json one object of these numbers. HPARAMS is a recipe's yaml or the hyperparams.yaml
of a run; options are those of its train.py. With --pretrained=False no weights are read
or drawn.
"""

import json
import sys

import torch
from rich.console import Console

from petl_modules.core.counts import counts, effective, table
from petl_modules.errors import UserError
from petl_modules.train.config import Config, load_config

USAGE = "usage: petl describe HPARAMS [--key=value ...] [--json]"
BUILT = ("model", "head")


def main(argv: list[str] | None = None) -> None:
    """Print the table, or with --json one object of parameter counts.

    Arguments
    ---------
    argv : list of str or None
        None for the program's own.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if "-h" in argv or "--help" in argv:
        print(f"{USAGE}\n\n{__doc__}")
        return
    as_json = "--json" in argv
    if as_json:
        argv.remove("--json")
    if not argv or argv[0].startswith("--"):
        raise UserError(f"Name a yaml file first: {USAGE[7:]}.")
    config = load_config(argv[0], argv[1:], unbuilt=("objective",))
    built = build(config)
    if as_json:
        found = counts(built["model"], built["head"])
        print(json.dumps({**found, **effective(built["model"])}))
    else:
        Console().print(table(built["model"], built["head"], config["method"]))


def build(config: Config) -> dict:
    """A config's model and head; of random weights their shapes alone."""
    if config["pretrained"] or config.get("seeded") is None:
        return config.objects(only=BUILT)
    if config.get("start") == "silence":  # which the backbone would have to hear
        config = config.replace(start="random")
    with torch.device("meta"):
        return config.objects(only=BUILT)
