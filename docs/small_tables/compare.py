"""Compare rows of a published table under two protocols: tables in markdown, Spearman's
rank correlations, and a plot; of the runs of the files in benchmarks/ named small_*.

    python docs/small_tables/compare.py [FOLDER]   # with the runs; results if not given
"""

import itertools
import json
import statistics
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from cycler import cycler
from ruamel.yaml import YAML
from scipy.stats import spearmanr

from petl_modules.grid.published import Paper, beside, figures

HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[1] / "benchmarks"
# The files of a table: the paper's own, and ours under its protocol and under our own
TABLES = {
    "table1": ("ast_table1", "small_table1", "small_table1_ours"),
    "sure": ("sure_classification", "small_sure", "small_sure_ours"),
}
COLUMNS = {"printed": "printed", "published": "its protocol", "ours": "ours"}
PRINTED_AS = {"prompt shallow 30": "prompt shallow 300"}  # of a shorter clip's tokens


def main(results: Path) -> None:
    """Print all tables, and draw their plots beside this file."""
    for name, (paper, *files) in TABLES.items():
        found = [accuracies(results / file, read(file)) for file in files]
        printed = Paper(**read(paper)["paper"])
        for task in dict.fromkeys(task for part in found for task, _ in part):
            rows = rows_of(task, found, printed)
            print(f"\n## {task}\n\n{table(rows)}\n\n{correlations(rows)}")
            draw(task, rows, HERE / f"{name}_{task.replace(' ', '_')}")


def read(file: str) -> dict:
    """A file of benchmarks/."""
    return YAML(typ="safe", pure=True).load(BENCHMARKS / f"{file}.yaml")


def accuracies(folder: Path, given: dict) -> dict:
    """`{(task, row): (runs' test accuracies, trained parameters)}` of a file's runs."""
    named = {m["name"] for m in given["methods"] if "name" in m}
    found = {}
    for path in sorted(folder.glob("*/**/results.json")):
        if "head_start" in path.parts:
            continue
        run = json.loads(path.read_text())
        task, row, *_ = path.relative_to(folder).parts
        key = task, row if row in named else run["method"]
        values, _ = found.setdefault(key, ([], 0))
        values.append(100 * run["metrics"]["test"]["accuracy"])
        counts = run["parameters"]
        found[key] = values, counts["petl"] + counts["norms"] + counts["head"]
    return found


def rows_of(task: str, found: list[dict], paper: Paper) -> list[dict]:
    """The rows that a protocol has, the best under the paper's first."""
    recipe, _, of = task.partition(" ")
    known = figures({"recipe": recipe, "task": of}, "accuracy")
    rows = []
    for key in dict.fromkeys([*found[0], *found[1]]):
        if key[0] != task:
            continue
        runs = [part.get(key, ([], 0)) for part in found]
        figure = beside(known, paper, PRINTED_AS.get(key[1], key[1]), None)
        rows.append(
            {
                "name": key[1],
                "trained": max(trained for _, trained in runs),
                "printed": [] if figure is None else [float(figure.value)],
                "published": runs[0][0],
                "ours": runs[1][0],
            }
        )
    return sorted(
        rows, key=lambda row: -statistics.mean(row["published"] or row["ours"])
    )


def table(rows: list[dict]) -> str:
    """In markdown: means over runs, and their deviation and number."""
    lines = ["| row | trained | printed | its protocol | ours |", "|---" * 5 + "|"]
    for row in rows:
        cells = row["name"], f"{row['trained']:,}"
        values = (spread(row[column], 1 + (column == "printed")) for column in COLUMNS)
        lines.append(f"| {' | '.join((*cells, *values))} |")
    return "\n".join(lines)


def spread(values: list[float], places: int) -> str:
    """A mean, and the deviation over so many runs; nothing of nothing."""
    if len(values) < 2:
        return "".join(f"{value:.{places}f}" for value in values)
    deviation = statistics.stdev(values)
    return f"{statistics.mean(values):.1f} ± {deviation:.1f} ({len(values)})"


def correlations(rows: list[dict]) -> str:
    """How alike the rankings are, by Spearman's coefficient, over the rows of both."""
    lines = []
    for left, right in itertools.combinations(COLUMNS, 2):
        both = [row for row in rows if row[left] and row[right]]
        if len(both) > 2:
            means = ([statistics.mean(row[c]) for row in both] for c in (left, right))
            found = spearmanr(*means)
            lines.append(
                f"- Spearman, {COLUMNS[left]} and {COLUMNS[right]}, {len(both)} rows: "
                f"{found.statistic:.2f} (p = {found.pvalue:.2f})"
            )
    return "\n".join(lines)


def draw(task: str, rows: list[dict], stem: Path) -> None:
    """A line a method, from protocol to protocol."""
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    styles = cycler(linestyle=["-", "--"]) * plt.rcParams["axes.prop_cycle"]
    for row, style in zip(rows, styles, strict=False):  # more rows than colours
        shown = [(i, row[c]) for i, c in enumerate(COLUMNS) if row[c]]
        places, values = zip(*((i, statistics.mean(v)) for i, v in shown), strict=True)
        axis.plot(places, values, marker="o", label=row["name"], **style)
    axis.set_xticks(range(len(COLUMNS)), COLUMNS.values())
    axis.set(ylabel="accuracy, %", title=task)
    axis.legend(fontsize="small", bbox_to_anchor=(1.01, 1), loc="upper left")
    for kind in ("png", "svg"):
        figure.savefig(f"{stem}.{kind}")
    plt.close(figure)


if __name__ == "__main__":
    main(Path(*sys.argv[1:] or ["results"]))
