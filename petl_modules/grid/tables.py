"""The tables of a report: cells once, for markdown, csv and the page."""

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from petl_modules.files import write_text
from petl_modules.grid.intervals import Interval
from petl_modules.grid.published import Paper, beside, protocols
from petl_modules.grid.rows import Row, Task
from petl_modules.methods import method_table
from petl_modules.tasks.metrics import lower_is_better, unit

CSV_COLUMNS = (
    *("task", "method", "few_shot", "rank", "backbone", "source", "runs", "missing"),
    *("metric", "mean", "low", "high", "std_folds", "std_seeds"),
    *("above_probe", "above_probe_low", "above_probe_high", "valid_mean"),
    *("trained_parameters", "stored_bytes", "seconds", "peak_memory_mib"),
)
ABOVE = "above the probe"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    title : str
    heads : list of str
    rows : list of list of str
        A row of papers' figures has its cells in `*asterisks*`, and a cell of fewer
        runs than it should be in `**two**`.
    note : str
        What is said above it.
    """

    title: str
    heads: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """The table with its title."""
        lines = [self.heads, ["---"] * len(self.heads), *self.rows]
        cells = ([cell.replace("|", "\\|") for cell in row] for row in lines)
        said = [self.note, ""] if self.note else []
        rows = (f"| {' | '.join(row)} |" for row in cells)
        return "\n".join([f"## {self.title}", "", *said, *rows])


def tables_of(tasks: Sequence[Task], paper: Paper | None = None) -> list[Table]:
    """The average over tasks where there are several, and a table for each: of a
    paper's rows with what it printed, or with all that papers say of the methods."""
    average = [average_table(tasks)] if len(tasks) > 1 else []
    if paper is not None:
        return [*average, *(paper_table(task, paper) for task in tasks)]
    return [*average, *map(task_table, tasks)]


def paper_table(task: Task, paper: Paper) -> Table:
    """The rows of one task with what a paper printed in them."""
    columns = columns_of(task)
    test = columns.index(f"test {unit(task.metric)}")
    columns.insert(test, f"printed {unit(task.metric)}")
    size = columns.index("trained")
    columns[size:size] = ["printed parameters", "ours, without head"]
    rows = []
    for row in task.rows:
        printed = beside(task.published, paper, row.label, row.few_shot)
        cells = our_cells(task, row) | {
            f"printed {unit(task.metric)}": printed.value if printed else "",
            "printed parameters": printed.parameters if printed else "",
            "ours, without head": f"{row.trained['petl'] + row.trained['norms']:,}",
        }
        rows.append([cells[name] for name in columns])
    return Table(task.name, columns, rows, task.not_beside)


def task_table(task: Task) -> Table:
    """The methods of one task, ours and those of papers."""
    columns = columns_of(task)
    rows, told = [], set()
    for at, row in enumerate(task.rows):
        cells = our_cells(task, row)
        rows.append([cells[name] for name in columns])
        last = all(other.method != row.method for other in task.rows[at + 1 :])
        if last:
            told.add(row.method)
            rows += published_rows(task, row.method, columns)
    for method in method_table():
        if method not in told:
            rows += published_rows(task, method, columns)
    said = filter(None, [protocols(task.published), task.not_beside])
    return Table(task.name, columns, rows, " ".join(said))


def average_table(tasks: Sequence[Task]) -> Table:
    """Methods by tasks, and the mean over all tasks of those that have them all."""
    better = [task for task in tasks if not lower_is_better(task.metric)]
    names = {}
    for task in tasks:
        for row in task.rows:
            names.setdefault((row.full_label, row.few_shot), {})[task.name] = row
    few_shot = any(shots is not None for _, shots in names)
    heads = ["method", *(["few-shot"] if few_shot else []), "trained, without head"]
    heads += [f"{task.name}, {unit(task.metric)}" for task in tasks]
    heads += ["average" if better == tasks else "average, without error rates"]
    rows = []
    for (name, shots), found in names.items():
        sizes = {row.trained["petl"] + row.trained["norms"] for row in found.values()}
        size = f"{sizes.pop():,}" if len(sizes) == 1 else "differs"
        cells = [name, *([str(shots or "all")] if few_shot else []), size]
        for task in tasks:
            row = found.get(task.name)
            text = f"{row.mean(task.metric):.2f}" if row else ""
            cells.append(f"**{text}**" if row and row.missing else text)
        whole = better and all(task.name in found for task in better)
        means = [found[task.name].mean(task.metric) for task in better] if whole else []
        rows.append([*cells, f"{statistics.mean(means):.2f}" if means else ""])
    return Table("Average over tasks", heads, rows)


def write_csv(task: Task, path: str | Path) -> None:
    """Write one task's table, as numbers."""
    stream = StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(numbers(task, row) for row in task.rows)
    for entry in task.published:
        writer.writerow(
            {
                "task": task.name,
                "method": entry.label,
                "few_shot": entry.few_shot,
                "backbone": entry.backbone,
                "source": f"published: {entry.source}",
                "metric": task.metric,
                "mean": entry.value,
                "trained_parameters": entry.parameters,
            }
        )
    write_text(path, stream.getvalue())


# Helpers


def columns_of(task: Task) -> list[str]:
    """The heads of a task's table; those that no row has a value for are left out."""
    always = ["method", "backbone", "runs", f"test {unit(task.metric)}"]
    sometimes = ["few-shot", "rank", "95 %", ABOVE, "± folds", "± seeds"]
    cells = [our_cells(task, row) for row in task.rows]
    there = {name for name in sometimes if any(row[name] for row in cells)}
    if all(row.few_shot is None for row in task.rows):
        there.discard("few-shot")
    order = [always[0], "few-shot", "rank", *always[1:], *sometimes[2:]]
    order += [f"valid {unit(task.metric)}", "trained", "stored, kB", "seconds a run"]
    return [n for n in order if n not in sometimes or n in there] + ["peak MiB"]


def our_cells(task: Task, row: Row) -> dict[str, str]:
    """A row of a task's table, by its columns' heads."""
    done, asked = len(row.runs), len(row.runs) + len(row.missing)
    metric = task.metric
    return {
        "method": row.label,
        "few-shot": str(row.few_shot or "all"),
        "rank": row.rank,
        "backbone": row.backbone,
        "runs": str(done) if done == asked else f"**{done} of {asked}**",
        f"test {unit(metric)}": f"{row.mean(metric):.2f}",
        "95 %": between(row.interval(metric)),
        ABOVE: gain(row.above_probe(metric)),
        "± folds": deviation(row.spread("fold", metric)),
        "± seeds": deviation(row.spread("seed", metric)),
        f"valid {unit(metric)}": f"{row.mean(metric, 'valid'):.2f}",
        "trained": f"{sum(row.trained.values()):,}",
        "stored, kB": "" if row.stored is None else f"{row.stored / 1000:,.0f}",
        "seconds a run": f"{row.seconds:,.0f}",
        "peak MiB": f"{row.peak:,.0f}",
    }


def numbers(task: Task, row: Row) -> dict[str, Any]:
    """A row of the csv file."""
    metric = task.metric
    low, high = row.interval(metric) or (None, None)
    above, bounds = row.above_probe(metric) or (None, None)
    above_low, above_high = bounds or (None, None)
    return {
        "task": task.name,
        "method": row.label,
        "few_shot": row.few_shot,
        "rank": row.rank,
        "backbone": row.backbone,
        "source": "ours",
        "runs": len(row.runs),
        "missing": len(row.missing),
        "metric": metric,
        "mean": row.mean(metric),
        "low": low,
        "high": high,
        "std_folds": row.spread("fold", metric),
        "std_seeds": row.spread("seed", metric),
        "above_probe": above,
        "above_probe_low": above_low,
        "above_probe_high": above_high,
        "valid_mean": row.mean(metric, "valid"),
        "trained_parameters": sum(row.trained.values()),
        "stored_bytes": row.stored,
        "seconds": round(row.seconds, 2),
        "peak_memory_mib": row.peak,
    }


def published_rows(
    task: Task, method: str, columns: Sequence[str]
) -> Iterable[list[str]]:
    """The rows of papers for one method."""
    for entry in task.published:
        if entry.method == method:
            cells = {
                "method": f"{entry.label}, published, {entry.source}",
                "few-shot": entry.few_shot or "all",
                "backbone": entry.backbone,
                f"test {unit(task.metric)}": entry.value,
                "trained": entry.parameters,
            }
            texts = (cells.get(name) for name in columns)
            yield [f"*{text}*" if text else "" for text in texts]


def between(interval: Interval | None) -> str:
    """An interval as text."""
    return "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def gain(above: tuple[float, Interval | None] | None) -> str:
    """A difference with its interval as text."""
    if above is None:
        return ""
    difference, interval = above
    bounds = "" if interval is None else f" ({interval[0]:+.2f} to {interval[1]:+.2f})"
    return f"{difference:+.2f}{bounds}"


def deviation(value: float | None) -> str:
    """A standard deviation as text."""
    return "" if value is None else f"{value:.2f}"
