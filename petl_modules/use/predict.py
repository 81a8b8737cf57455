"""Labels or text for recordings: `python -m petl_modules.predict ADAPTER PATH...`.

A path is a file or a folder, which is searched for recordings. What cannot be read is
named, and the rest is still answered; the exit status is then 1.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from petl_modules.data import is_audio
from petl_modules.use.inference import load_adapter


def main(argv=None):
    """Print answers as a table, or with --json as a list of objects."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("adapter", help="folder of a run")
    add("paths", nargs="+", metavar="PATH", help="file or folder")
    add("--json", action="store_true", help="print JSON, with all probabilities")
    add("--source", help="the backbone, if it is not where the adapter says")
    add("--batch_size", type=positive, default=16)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(argv)
    adapter = load_adapter(options.adapter, None, options.source, options.device)
    found = {path: recordings(path) for path in options.paths}
    files = list(dict.fromkeys(file for inside in found.values() for file in inside))
    answers = adapter.answer_files(files, None, options.batch_size, progress=True)
    answers += [
        {"file": path, "error": f"There are no recordings in the folder {path}."}
        for path, inside in found.items()
        if not inside
    ]
    if options.json:
        print(json.dumps(answers, indent=1, ensure_ascii=False))
    else:
        Console().print(table(answers))
    failed = [answer["error"] for answer in answers if "error" in answer]
    for error in failed:
        print(f"error: {error}", file=sys.stderr)
    return 1 if failed else 0


def recordings(path):
    """The file that a path names, or those in a folder, sorted."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and is_audio(p))


def positive(text):
    """A whole number above 0."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def table(answers):
    """Answers as a table."""
    text = any("text" in answer for answer in answers)
    shown = Table()
    for name in ("file", "text" if text else "label"):
        shown.add_column(name, overflow="fold")
    if not text:
        shown.add_column("probability", justify="right")
    for answer in answers:
        file = escape(answer["file"])
        if "text" in answer:
            shown.add_row(file, escape(answer["text"]))
        elif "label" in answer:
            chance = f"{answer['probability']:.4f}"
            shown.add_row(file, escape(answer["label"]), chance)
    return shown
