"""Plots of results, each as PNG and SVG."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

matplotlib.use("Agg")
from matplotlib import pyplot

from petl_modules.files import write_figure
from petl_modules.grid.rows import Task
from petl_modules.methods import method_table
from petl_modules.tasks.metrics import lower_is_better, unit
from petl_modules.tasks.pictures import as_it_is, confusion_matrix

MARKERS = "osD^vP*X<>"
PANEL = (4.6, 3.8)  # inches
ACROSS = 3  # panels, at most
LETTER = 0.075  # inches, of a legend's text
LINE = 0.17  # inches


def trade_off(tasks: Sequence[Task], stem: Path) -> Path:
    """A metric against trained parameters, with the Pareto front: for each task a
    panel, for each row a point with its deviation over seeds, or over folds where there
    is one seed. Of few-shot rows those of the most clips are shown.

    Arguments
    ---------
    tasks : list of petl_modules.grid.rows.Task
    stem : Path
        Of the files, without suffix.

    Returns
    -------
    Path
        The PNG.
    """
    figure, panels = side_by_side(len(tasks))
    looks = styles(tasks)
    for axes, task in zip(panels, tasks, strict=True):
        points, most = [], shots_of(task)[-1]
        for row in task.rows:
            if row.few_shot != most:
                continue
            size, mean = sum(row.trained.values()), row.mean(task.metric)
            std = row.error(task.metric)
            look = {"linestyle": "none", **looks[row.full_label]}
            axes.errorbar(size, mean, yerr=std, label=as_it_is(row.full_label), **look)
            points.append((size, mean))
        front = pareto_front(points, lower_is_better(task.metric))
        sizes, means = zip(*front, strict=True)
        axes.step(sizes, means, where="post", color="0.6", zorder=0)
        title = task.name if most is None else f"{task.name}, {most} clips a class"
        axes.set(xscale="log", xlabel="trained parameters", title=as_it_is(title))
        few = max(size for size, _ in points) < 1000 * min(size for size, _ in points)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k, of which many fit
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel(f"test {unit(task.metric).replace('_', ' ')}")
    return save(with_legend(figure, panels), stem)


def few_shot_curves(tasks: Sequence[Task], stem: Path) -> Path:
    """A metric against training clips per class; arguments and result as of
    `trade_off`."""
    figure, panels = side_by_side(len(tasks))
    looks = styles(tasks)
    for axes, task in zip(panels, tasks, strict=True):
        curves, ticks = defaultdict(list), shots_of(task)
        for row in task.rows:
            point = ticks.index(row.few_shot), row.mean(task.metric)
            curves[row.full_label].append((*point, row.error(task.metric) or 0.0))
        for name, curve in curves.items():
            x, means, stds = zip(*curve, strict=True)
            axes.errorbar(x, means, yerr=stds, label=as_it_is(name), **looks[name])
        labels = ["all" if count is None else str(count) for count in ticks]
        axes.set_xticks(range(len(ticks)), labels)
        axes.set(xlabel="training clips per class", title=as_it_is(task.name))
        axes.set_ylabel(f"test {unit(task.metric).replace('_', ' ')}")
    return save(with_legend(figure, panels), stem)


def confusions(pairs: Sequence[tuple[str, str]], title: str, stem: Path) -> Path:
    """How often each class is taken for each, in percent of its clips.

    Arguments
    ---------
    pairs : list of tuple
        `(label, prediction)` of clips, of all folds and seeds.
    title : str
    stem : Path

    Returns
    -------
    Path
        The PNG.
    """
    labels = sorted({label for pair in pairs for label in pair})
    figure = confusion_matrix(*zip(*pairs, strict=True), labels, normalize="true")
    figure.axes[0].set_title(as_it_is(title))
    return save(figure, stem)


def pareto_front(
    points: Sequence[tuple[float, float]], lower: bool = False
) -> list[tuple[float, float]]:
    """The points `(size, value)` that no other beats with as few parameters.

    Example
    -------
    >>> pareto_front([(10, 0.5), (20, 0.4), (30, 0.9)])
    [(10, 0.5), (30, 0.9)]
    """
    sign, front = -1 if lower else 1, []
    for size, value in sorted(points, key=lambda p: (p[0], -sign * p[1])):
        if not front or sign * value > sign * front[-1][1]:
            front.append((size, value))
    return front


# Helpers


def side_by_side(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, a few in a row."""
    across = min(count, ACROSS)
    down = ceil(count / across)
    figure, panels = pyplot.subplots(
        down,
        across,
        figsize=(PANEL[0] * across, PANEL[1] * down),
        squeeze=False,
        layout="constrained",
    )
    panels = list(panels.flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    for axes in panels[:count]:
        axes.grid(alpha=0.3)
    return figure, panels[:count]


def with_legend(figure: Figure, panels: Sequence[Axes]) -> Figure:
    """The figure, every name once, below the panels; it grows with the names."""
    entries = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    width, height = figure.get_size_inches()
    room = max(map(len, entries)) * LETTER + 0.8
    columns = max(1, min(len(entries), int(width / room)))
    lines = ceil(len(entries) / columns)
    figure.set_size_inches(max(width, room + 0.4), height + lines * LINE + 0.3)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=columns,
        fontsize="small",
    )
    return figure


def styles(tasks: Sequence[Task]) -> dict[str, dict[str, Any]]:
    """Colours of the methods, the same in all plots, and markers of the rows, by
    label."""
    rows = {row.full_label: row for task in tasks for row in task.rows}
    colours, names = pyplot.get_cmap("tab20"), [*method_table()]
    return {
        label: {
            "color": colours(names.index(row.method) % colours.N),
            "marker": marker,
            "capsize": 3,
        }
        for (label, row), marker in zip(rows.items(), cycle(MARKERS), strict=False)
    }


def shots_of(task: Task) -> list[int | None]:
    """The numbers of clips per class, None (all of them) last."""
    shots = {row.few_shot for row in task.rows}
    return sorted(shots - {None}) + [None] * (None in shots)


def save(figure: Figure, stem: Path) -> Path:
    """Write a figure as PNG and SVG; returns the PNG's path."""
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("svg", "png")]
    for path in paths:
        write_figure(path, figure, dpi=120)
    pyplot.close(figure)
    return paths[-1]
