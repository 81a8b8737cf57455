"""Pictures and a page of what is in a list of recordings."""

import base64
from html import escape
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from petl_modules.data.survey import Survey
from petl_modules.files import make_folder, write_text

MOST_LABELS = 60  # that a picture shows
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;"
    "padding:0 1em;color-scheme:light dark}pre{overflow-x:auto}"
    "img{max-width:100%;background:white}"
)


def pictures(found: Survey) -> dict[str, Figure]:
    """Figures by name: lengths of clips, and clips of each label by split."""
    figures = {"lengths": lengths(found)}
    if found.by_label():
        figures["labels"] = labels(found)
    return figures


def write_pictures(found: Survey, folder: Path) -> None:
    """The figures as PNG files in a folder."""
    for name, figure in pictures(found).items():
        figure.savefig(make_folder(folder) / f"{name}.png", dpi=120)


def write_page(found: Survey, lines: list[str], path: Path) -> None:
    """One page with text and pictures, which needs nothing else."""
    parts = [
        "<!doctype html><meta charset='utf-8'><meta name='viewport' "
        f"content='width=device-width'><title>{escape(found.name)}</title>"
        f"<style>{STYLE}</style><h1>{escape(Path(found.name).name)}</h1>",
        f"<pre>{escape(chr(10).join(lines))}</pre>",
    ]
    for name, figure in pictures(found).items():
        stream = BytesIO()
        figure.savefig(stream, format="png", dpi=120)
        code = base64.b64encode(stream.getvalue()).decode()
        parts.append(f"<img alt='{name}' src='data:image/png;base64,{code}'>")
    write_text(path, "\n".join(parts))


def lengths(found: Survey) -> Figure:
    """How many clips are how long."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    parts = found.by_split()
    values = [[found.seconds[row.key] for row in rows] for rows in parts.values()]
    axes.hist(values, bins=40, stacked=True, label=[n or "clips" for n in parts])
    axes.set(xlabel="seconds", ylabel="clips")
    axes.legend()
    return figure


def labels(found: Survey) -> Figure:
    """How many clips have which label, by split."""
    rows = dict(list(found.by_label().items())[:MOST_LABELS])
    figure = Figure(figsize=(7, 1 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    left = [0] * len(rows)
    for name in found.by_split():
        counts = [
            sum((row.split or "") == name for row in own) for own in rows.values()
        ]
        axes.barh(range(len(rows)), counts, left=left, label=name or "clips")
        left = [a + b for a, b in zip(left, counts, strict=True)]
    names = [label.replace("$", r"\$") for label in rows]
    axes.set(yticks=range(len(rows)), yticklabels=names, xlabel="clips")
    axes.invert_yaxis()
    axes.legend()
    return figure
