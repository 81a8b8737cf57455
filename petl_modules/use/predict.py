"""Say what recordings are: labels with probabilities, or text.

`petl predict ADAPTER PATH...`: a path is a file, or a folder, which is searched for
recordings. What cannot be read is named, and the rest is still answered; the exit
status is then 1. Of a recording that is longer than the clips of training, the
beginning is heard, and that is said; --window answers all of it.
"""

import csv
import json
import sys
from argparse import Namespace
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from petl_modules.console import Parser, above_zero, positive, share
from petl_modules.data import files_below, is_audio
from petl_modules.errors import UserError
from petl_modules.use.inference import Adapters, load_adapter
from petl_modules.use.loaded import Answer
from petl_modules.use.windows import answer_windows

# what parts values and lines, and names may have
PARTING = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})


def main(argv: list[str] | None = None) -> int:
    """Print answers as a table, or with --json as a list of objects; returns the exit
    status."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("adapter", metavar="ADAPTER", help="The folder of a run.")
    add("paths", nargs="+", metavar="PATH", help="A recording, or a folder of them.")
    add("--json", action="store_true", help="Print JSON, with all probabilities.")
    add("--source", help="The backbone, if it is not where the adapter says.")
    add("--csv", action="store_true", help="Print CSV.")
    audacity = "Print labels with times, as Audacity imports them; needs --window."
    add("--audacity", action="store_true", help=audacity)
    add("--top", type=above_zero, default=1, help="How many labels (%(default)s).")
    threshold = "Print all labels of at least this probability, in place of the best."
    add("--threshold", type=share, help=threshold)
    window = "Answer every so many seconds of a long recording, with times."
    add("--window", type=positive, help=window)
    hop = "Seconds from one window to the next (half a window; a window, of text)."
    add("--hop", type=positive, help=hop)
    size = "How many clips are computed together (%(default)s)."
    add("--batch_size", type=above_zero, default=16, help=size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, help="Where to compute (%(default)s).")
    precision = "The precision of products (%(default)s)."
    add("--precision", choices=("fp32", "bf16"), default="fp32", help=precision)
    options = parser.parse_args(argv)
    refuse_together(options)
    adapters = load_adapter(
        options.adapter, None, options.source, options.device, options.precision
    )
    found = {path: recordings(path) for path in options.paths}
    files = list(dict.fromkeys(file for inside in found.values() for file in inside))
    if options.window is None:
        answers = adapters.answer_files(files, None, options.batch_size, progress=True)
    else:
        answers = windows_of(adapters, files, options)
    answers += [
        {"file": path, "error": f"There are no recordings in the folder {path}."}
        for path, inside in found.items()
        if not inside
    ]
    show(answers, options)
    for answer in answers:
        if "heard" in answer:
            print(
                f"{answer['file']} has {answer['duration']:.1f} s, of which the first "
                f"{answer['heard']:.1f} s were heard; --window={answer['heard']:g} "
                "answers all of it.",
                file=sys.stderr,
            )
    failed = [answer["error"] for answer in answers if "error" in answer]
    for error in failed:
        print(f"error: {error}", file=sys.stderr)
    return 1 if failed else 0


def refuse_together(options: Namespace) -> None:
    """Raise a UserError for options that say two things."""
    if sum([options.json, options.csv, options.audacity]) > 1:
        raise UserError("Give one of --json, --csv and --audacity.")
    if options.window is None and (options.audacity or options.hop is not None):
        raise UserError("--audacity and --hop need --window=SECONDS.")


def windows_of(adapters: Adapters, files: list[Path], options: Namespace) -> list:
    """Answers for all windows of files, or what is wrong with a file."""
    answers = []
    for file in files:
        try:
            answers += answer_windows(
                adapters, file, options.window, options.hop, None, options.batch_size
            )
        except UserError as error:
            answers.append({"file": str(file), "error": str(error)})
    return answers


def recordings(path: str | Path) -> list[Path]:
    """The file that a path names, or those in a folder, sorted."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    return [file for file in files_below(path) if is_audio(file)]


def show(answers: list[Answer], options: Namespace) -> None:
    """Print answers as they are wanted: a table on a terminal, and elsewhere lines
    whose values are parted by tabs."""
    if options.json:
        print(json.dumps(answers, indent=1, ensure_ascii=False))
        return
    rows = [
        row
        for answer in answers
        if "error" not in answer
        for row in rows_of(answer, options.top, options.threshold)
    ]
    names = list(rows[0]) if rows else []
    if options.csv:
        writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif options.audacity:
        for row in rows:
            said = row.get("label", row.get("text"))
            print(row["start"], row["end"], said, sep="\t")
    elif sys.stdout.isatty():
        table = Table(*(Column(name, overflow="fold") for name in names))
        for row in rows:
            table.add_row(*(escape(str(value)) for value in row.values()))
        Console().print(table)
    else:
        for row in rows:
            values = (str(value).translate(PARTING) for value in row.values())
            print(*values, sep="\t")


def rows_of(answer: Answer, top: int, threshold: float | None) -> list[dict]:
    """What is shown of an answer: a text, its likeliest labels, or of an adapter of
    several labels all that are as likely as the threshold, or as their own."""
    place = {key: answer[key] for key in ("file", "start", "end") if key in answer}
    if "text" in answer:
        return [{**place, "text": answer["text"]}]
    chances = sorted(answer["probabilities"].items(), key=lambda pair: -pair[1])
    if threshold is None and "labels" in answer:
        chances = [pair for pair in chances if pair[0] in answer["labels"]]
    elif threshold is None:
        chances = chances[:top]
    else:
        chances = [pair for pair in chances if pair[1] >= threshold]
    return [
        {**place, "label": label, "probability": f"{chance:.4f}"}
        for label, chance in chances
    ]
