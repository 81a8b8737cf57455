"""Print what finished runs say, as tables in markdown.

`petl report FOLDER [METRIC] [--output=FOLDER]`: for each task there is a table of the
methods, published figures beside them, and the average over tasks; and what is missing,
with the reason. A mean is over seeds and folds, and runs are averaged only if nothing
but those tells them apart. Beside it stand its interval of 95 % (over the test clips,
or over seeds where a metric is no mean over clips), the paired difference to the linear
probe with its interval, and the deviations over folds and over seeds. With --output
csv tables, plots and a page for the browser that sorts and filters are written too.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from petl_modules.console import Parser
from petl_modules.errors import UserError
from petl_modules.files import make_folder, write_text
from petl_modules.grid import plots
from petl_modules.grid.page import page
from petl_modules.grid.published import Paper
from petl_modules.grid.rows import Task, tasks_of
from petl_modules.grid.runs import Run, runs_below
from petl_modules.grid.tables import tables_of, write_csv


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="A folder with runs in it, at any depth.")
    metric = "A metric of results.json, such as macro_f1, instead of the main one."
    add("metric", metavar="METRIC", nargs="?", help=metric)
    output = "A folder for report.md, report.html, csv tables and plots."
    add("--output", type=Path, help=output)
    options = parser.parse_args(argv)
    root = Path(options.folder)
    return write_report(runs_below(root), root, options.output, options.metric)


def write_report(
    runs: Sequence[Run],
    root: Path,
    output: Path | None = None,
    metric: str | None = None,
    paper: Paper | None = None,
) -> int:
    """Print the tables of runs, and write them with plots into a folder.

    Arguments
    ---------
    runs : list of Run
    root : Path
        That folders are named from.
    output : Path or None
    metric : str or None
        One of those in results.json; None takes the one that chose the epoch.
    paper : Paper or None
        Whose printed figures stand in the rows, and whose protocol above the tables.

    Returns
    -------
    int
        The exit status: 1 if results are missing.

    Raises
    ------
    UserError
        If there are no results at all, or not of this metric.
    """
    missing = [f"{named(run, root)}: {run.problem}" for run in runs if not run.result]
    for line in missing:
        print(f"error: {line}", file=sys.stderr)
    tasks = tasks_of(runs, metric, paper)
    if not tasks:
        raise UserError(f"There are no finished runs below {root}.")
    tables = tables_of(tasks, paper)
    protocol = "" if paper is None else paper.markdown()
    parts = [protocol] if protocol else []
    parts += [table.markdown() for table in tables]
    if missing:
        lines = "\n".join(f"- {line}" for line in missing)
        parts.append(f"## Missing, and in no mean\n\n{lines}")
        parts.append("What is of fewer runs than it should be is in bold.")
    print("\n\n".join(parts))
    if output is not None:
        make_folder(output)
        for task in tasks:
            write_csv(task, output / f"{slug(task.name)}.csv")
        shown = draw(tasks, output)
        links = [f"![{path.stem}]({path.name})" for path in shown]
        parts.append("\n\n".join(["## Plots", *links]))
        write_text(output / "report.md", "\n\n".join(parts) + "\n")
        title = f"Runs in {root.resolve().name}"
        text = page(title, tables, missing, shown, protocol)
        write_text(output / "report.html", text)
        print(f"Report, tables and plots: {output}", file=sys.stderr)
    return 1 if missing else 0


def draw(tasks: Sequence[Task], output: Path) -> list[Path]:
    """Write the plots; returns the PNG files."""
    shown = [plots.trade_off(tasks, output / "trade_off")]
    curves = [task for task in tasks if len({row.few_shot for row in task.rows}) > 1]
    if curves:
        shown.append(plots.few_shot_curves(curves, output / "few_shot"))
    for task in tasks:
        for row in task.rows:
            pairs = [pair for run in row.runs for pair in guesses(run)]
            if pairs:
                shots = "" if row.few_shot is None else f" {row.few_shot}-shot"
                name = f"{task.name} {row.full_label}{shots}"
                stem = output / f"confusions_{slug(name)}"
                shown.append(plots.confusions(pairs, name, stem))
    return shown


# Helpers


def guesses(run: Run) -> list[tuple[str, str]]:
    """`(label, prediction)` of every test clip; none for other tasks, and for a damaged
    file, which is named."""
    try:
        rows = run.predictions or []
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return []
    return [(label, prediction) for _, label, prediction in rows]


def named(run: Run, root: Path) -> str:
    """A run's folder as people know it."""
    inside = run.folder.is_relative_to(root)
    return str(run.folder.relative_to(root) if inside else run.folder)


def slug(text: str) -> str:
    """A text as a file's name."""
    return "".join(c if c.isalnum() or c in "-=." else "_" for c in text)[:120]
