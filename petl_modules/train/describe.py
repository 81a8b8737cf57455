"""What would train, without data: `python -m petl_modules.describe HPARAMS
[overrides] [--json]`."""

import json
import sys

from rich.console import Console

from petl_modules.core.counts import counts, table
from petl_modules.train.config import load_config

GROUPS = {
    "petl": "method",
    "backbone": "backbone",
    "site_norms": "norms of the sites",
    "last_norm": "last norm",
    "head": "head",
}


def main(argv=None):
    """Print the table, or with --json one object of parameter counts."""
    argv = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in argv
    if as_json:
        argv.remove("--json")
    if not argv or argv[0].startswith("--"):
        sys.exit("usage: python -m petl_modules.describe HPARAMS [--key=value ...]")
    config = load_config(argv[0], argv[1:])
    built = config.objects(only=("model", "head"))
    if as_json:
        print(json.dumps(counts(built["model"], built["head"])))
    else:
        Console().print(table(built["model"], built["head"], config["method"]))
