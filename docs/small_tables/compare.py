"""Compare rows of a published table under two protocols: tables in markdown, Spearman's
rank correlations, and a plot; of the runs of the files in benchmarks/ named small_*.

    DATA=... MODELS=... python docs/small_tables/compare.py
"""

import statistics
from pathlib import Path

import matplotlib.pyplot as plt
from scipy.stats import spearmanr

from petl_modules.console import quiet, refusing
from petl_modules.grid.benchmark import load_benchmark, read
from petl_modules.grid.published import Paper, beside, figures
from petl_modules.grid.runs import read_job

HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[1] / "benchmarks"
# The files of a table: the paper's own, and ours under its protocol and under our own
TABLES = {
    "table1": ("ast_table1", "small_table1", "small_table1_ours"),
    "sure": ("sure_classification", "small_sure", "small_sure_ours"),
}
PRINTED_AS = {"prompt shallow 30": "prompt shallow 300"}  # of a shorter clip's tokens


def main() -> None:
    """Print all tables, and draw their plots beside this file."""
    for name, (paper, *files) in TABLES.items():
        found = [accuracies(file) for file in files]
        printed = read(BENCHMARKS / f"{paper}.yaml")["paper"]
        for task in dict.fromkeys(task for task, _ in found[1]):
            rows = rows_of(task, found, printed)
            print(f"\n## {task}\n\n{table(rows)}\n\n{correlations(rows)}")
            draw(task, rows, HERE / f"{name}_{task.replace(' ', '_')}")


def accuracies(file: str) -> dict:
    """`{(task, row): (runs' test accuracies, trained parameters)}` of a file's runs."""
    found = {}
    for job in load_benchmark(BENCHMARKS / f"{file}.yaml").jobs:
        run = read_job(job)
        if run.result is None:
            continue
        key = job.task or job.recipe, job.name or job.config["method"]
        values, _ = found.setdefault(key, ([], 0))
        values.append(100 * run.result["metrics"]["test"]["accuracy"])
        counts = run.result["parameters"]
        found[key] = values, counts["petl"] + counts["norms"] + counts["head"]
    return found


def rows_of(task: str, found: list[dict], paper: Paper) -> list[dict]:
    """The rows that both protocols have, the best under ours first."""
    recipe, _, of = task.partition(" ")
    known = figures({"recipe": recipe, "task": of}, "accuracy")
    rows = []
    for key, (ours, trained) in found[1].items():
        if key[0] != task or key not in found[0]:
            continue
        label = PRINTED_AS.get(key[1], key[1])
        figure = beside(known, paper, label, None)
        value = None if figure is None else float(figure.value)
        row = {"name": key[1], "trained": trained, "printed": value}
        rows.append({**row, "published": found[0][key][0], "ours": ours})
    return sorted(rows, key=lambda row: -statistics.mean(row["ours"]))


def table(rows: list[dict]) -> str:
    """In markdown: means over runs, and their deviation and number."""
    lines = [
        "| row | trained | printed | its protocol | ours |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        value = "" if row["printed"] is None else f"{row['printed']:.2f}"
        cells = row["name"], f"{row['trained']:,}", value
        both = spread(row["published"]), spread(row["ours"])
        lines.append(f"| {' | '.join((*cells, *both))} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """A mean, and the deviation over so many runs."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    deviation = statistics.stdev(values)
    return f"{statistics.mean(values):.1f} ± {deviation:.1f} ({len(values)})"


def correlations(rows: list[dict]) -> str:
    """How alike the rankings are, by Spearman's coefficient."""
    means = {k: [statistics.mean(r[k]) for r in rows] for k in ("published", "ours")}
    lines = [said("the two protocols here", means["published"], means["ours"])]
    if all(row["printed"] is not None for row in rows):
        printed = [row["printed"] for row in rows]
        lines += [
            said("printed and its protocol", printed, means["published"]),
            said("printed and ours", printed, means["ours"]),
        ]
    return "\n".join(lines)


def said(of: str, left: list[float], right: list[float]) -> str:
    """One coefficient with its p."""
    found = spearmanr(left, right)
    return f"- Spearman, {of}: {found.statistic:.2f} (p = {found.pvalue:.2f})"


def draw(task: str, rows: list[dict], stem: Path) -> None:
    """A line a method, from protocol to protocol."""
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    columns = ("printed", "published", "ours")
    names = ("printed", "its protocol, here", "our protocol, here")
    for row in rows:
        values = [None if row[c] is None else mean_of(row[c]) for c in columns]
        places = [i for i, value in enumerate(values) if value is not None]
        shown = [values[i] for i in places]
        axis.plot(places, shown, marker="o", label=row["name"])
    axis.set_xticks(range(len(columns)), names)
    axis.set(ylabel="accuracy, %", title=task)
    axis.legend(fontsize="small", bbox_to_anchor=(1.01, 1), loc="upper left")
    for kind in ("png", "svg"):
        figure.savefig(f"{stem}.{kind}")
    plt.close(figure)


def mean_of(value: float | list[float]) -> float:
    """Of runs, or a printed value as it is."""
    return statistics.mean(value) if isinstance(value, list) else value


if __name__ == "__main__":
    quiet()
    with refusing():
        main()
