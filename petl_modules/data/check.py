"""Say what is in a list of recordings before anything is learnt of it.

`petl data check DATA`: DATA is a csv or tsv table, JSON, a folder that the library
datasets saved, or a folder of recordings. Said are clips, hours, rates, channels,
classes and lengths; what is broken, with its row; what would be left out; and what is
in two splits: the same recording under one name or several, or one group. Every
recording is decoded to its end, once for all runs. The exit status is 1 where something
is broken or leaks.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from petl_modules.console import Parser, positive
from petl_modules.data.own import read_own
from petl_modules.data.own_columns import LEARNS, Columns
from petl_modules.data.survey import Survey, survey
from petl_modules.knobs import knobs_of

MOST = 20  # rows of a table, or sentences of one kind, that are printed


def main(argv: list[str] | None = None) -> int:
    """Print what is there; returns the exit status."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("action", choices=("check",), help="What to do with it.")
    add("data", metavar="DATA", help="The list of recordings.")
    task = "What will be learnt: all rows must have it (whatever there is)."
    add("--task", choices=tuple(LEARNS), help=task)
    longest = "Seconds after which training cuts clips, or leaves texts out."
    add("--max_duration", type=positive, metavar="SECONDS", help=longest)
    knobs = knobs_of(Columns)
    for name, knob in knobs.items():
        add(f"--{name}", metavar="TEXT", help=knob.help.replace("%", "%%"))
    add("--json", action="store_true", help="Print one object.")
    add("--all", action="store_true", help="Print all rows of tables and sentences.")
    add("--plots", type=Path, metavar="FOLDER", help="Where PNG pictures go.")
    add("--html", type=Path, metavar="FILE", help="A page with all of it.")
    options = parser.parse_args(argv)
    given = {name: getattr(options, name) for name in knobs}
    said = {n: knobs[n].read(text) for n, text in given.items() if text is not None}
    own = read_own(options.data, replace(Columns(), **said), options.task)
    found = survey(own, options.task)
    if options.max_duration is not None:
        found.left_out += too_long(found, options.max_duration)
    lines = told(found, None if options.all else MOST)
    if options.json:
        print(json.dumps(as_object(found), indent=1, ensure_ascii=False))
    else:
        print("\n".join(lines))
    if options.plots is not None or options.html is not None:
        draw(found, options.plots, options.html)
    return 0 if found.sound else 1


def draw(found: Survey, plots: Path | None, page: Path | None) -> None:
    """Write pictures and a page, where they are asked for."""
    from petl_modules.data.survey_pictures import write_page, write_pictures

    if plots is not None:
        write_pictures(found, plots)
    if page is not None:
        write_page(found, told(found, None), page)


def too_long(found: Survey, most: float) -> list[str]:
    """A sentence on the clips that are longer than training hears."""
    rows = [row for row in found.rows if found.seconds[row.key] > most]
    if not rows:
        return []
    texts = LEARNS.get(found.task or "") == "text"
    what = "would not train" if texts else "would be cut"
    return [
        f"{len(rows)} clips of {found.hours(rows):.2f} h are longer than "
        f"max_duration={most:g} and {what}, such as {rows[0].key}."
    ]


def told(found: Survey, most: int | None) -> list[str]:
    """What was found, as lines of text."""
    groups = {row.group for row in found.rows} - {None}
    lengths = ", ".join(f"{k} {v:.2f} s" for k, v in found.lengths().items())
    lines = [
        f"{found.name}: {len(found.rows)} clips, {found.hours():.2f} h",
        f"lengths   {lengths}",
        f"rates     {counted(found.rates, ' Hz')}",
        f"channels  {counted(found.channels, '')}",
    ]
    if groups:
        lines.append(f"groups    {len(groups)}")
    texts = [row.text for row in found.rows if row.text]
    if texts:
        characters = sorted({c for text in texts for c in text})
        words = sum(len(text.split()) for text in texts)
        lines += [
            f"texts     {len(texts)} of {words} words; the longest has "
            f"{max(map(len, texts))} characters",
            f"signs     {''.join(characters)}",
        ]
    splits = {name: rows for name, rows in found.by_split().items() if name}
    lines += [
        f"{name:10}{len(rows)} clips, {found.hours(rows):.2f} h"
        for name, rows in splits.items()
    ]
    labels = found.by_label()
    if labels:
        lines += ["", *label_table(found, labels, list(splits), most)]
    for title, sentences in (
        ("broken", found.broken),
        ("in two splits", found.leaks),
        ("there twice", found.copies),
        ("left out", found.left_out),
    ):
        if sentences:
            lines += ["", f"{title} ({len(sentences)}):"]
            lines += [f"  {sentence}" for sentence in shortened(sentences, most)]
    return lines


def label_table(
    found: Survey, labels: dict[str, list], splits: list[str], most: int | None
) -> list[str]:
    """Clips, minutes and splits of every class or label."""
    width = max(len("label"), *map(len, labels))
    heads = "".join(f"{name:>8}" for name in ("clips", "minutes", *splits))
    lines = [f"{'label':{width}}{heads}"]
    for label, rows in labels.items():
        minutes = f"{60 * found.hours(rows):.1f}"
        parts = [sum(row.split == name for row in rows) for name in splits]
        cells = "".join(f"{value:>8}" for value in (len(rows), minutes, *parts))
        lines.append(f"{label:{width}}{cells}")
    return [lines[0], *shortened(lines[1:], most)]


def shortened(lines: list[str], most: int | None) -> list[str]:
    """The first lines, and how many there are more."""
    if most is None or len(lines) <= most:
        return lines
    return [*lines[:most], f"... and {len(lines) - most} more (--all shows them)"]


def counted(count: Any, unit: str) -> str:
    """How often which value comes."""
    return ", ".join(f"{value}{unit}: {n}" for value, n in count.most_common())


def as_object(found: Survey) -> dict[str, Any]:
    """What was found, for a program."""
    return {
        "name": found.name,
        "clips": len(found.rows),
        "hours": round(found.hours(), 4),
        "lengths": {k: round(v, 4) for k, v in found.lengths().items()},
        "rates": dict(found.rates),
        "channels": dict(found.channels),
        "splits": {name: len(rows) for name, rows in found.by_split().items() if name},
        "labels": {label: len(rows) for label, rows in found.by_label().items()},
        "broken": found.broken,
        "in_two_splits": found.leaks,
        "there_twice": found.copies,
        "left_out": found.left_out,
    }
