"""Say what recordings are: labels with probabilities, or text.

`petl predict ADAPTER PATH...`: a path is a file, or a folder, which is searched for
recordings. What cannot be read is named, and the rest is still answered; the exit
status is then 1.
"""

import json
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from petl_modules.console import Parser, above_zero
from petl_modules.data import files_below, is_audio
from petl_modules.use.inference import load_adapter


def main(argv: list[str] | None = None) -> int:
    """Print answers as a table, or with --json as a list of objects; returns the exit
    status."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("adapter", metavar="ADAPTER", help="The folder of a run.")
    add("paths", nargs="+", metavar="PATH", help="A recording, or a folder of them.")
    add("--json", action="store_true", help="Print JSON, with all probabilities.")
    add("--source", help="The backbone, if it is not where the adapter says.")
    size = "How many clips are computed together (%(default)s)."
    add("--batch_size", type=above_zero, default=16, help=size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, help="Where to compute (%(default)s).")
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


def recordings(path: str | Path) -> list[Path]:
    """The file that a path names, or those in a folder, sorted."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    return [file for file in files_below(path) if is_audio(file)]


def table(answers: list[dict]) -> Table:
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
