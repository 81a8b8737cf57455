"""Print what finished runs say, as tables in markdown.

`petl report FOLDER [METRIC] [--output=FOLDER]`: for each task there is a table of the
methods with mean and standard deviation over seeds and folds, published figures beside
them, and the average over tasks; and what is missing, with the reason. With --output
also csv tables and plots are written. Runs are averaged only if nothing but seed and
fold tells them apart.
"""

import csv
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from petl_modules.console import Parser
from petl_modules.data import read_table
from petl_modules.errors import UserError
from petl_modules.files import write_text
from petl_modules.grid import plots
from petl_modules.grid.jobs import FAILURE, as_text, failure
from petl_modules.methods import method_table
from petl_modules.tasks.classification import PREDICTIONS
from petl_modules.tasks.metrics import lower_is_better, main_metric, scale, unit
from petl_modules.train.config import load_config
from petl_modules.train.results import HARMLESS, HPARAMS, RESULTS, read_results
from petl_modules.use.adapter_file import TENSORS

PUBLISHED = Path(__file__).parent.parent / "hparams" / "published.csv"
REPEATED = {"seed", "fold"}
OWN_COLUMN = {"method", "few_shot", "source", "recipe", "dataset", "task"}
CSV_COLUMNS = (
    "task",
    "method",
    "few_shot",
    "backbone",
    "source",
    "runs",
    "missing",
    "metric",
    "mean",
    "std",
    "valid_mean",
    "trained_parameters",
    "stored_bytes",
    "seconds",
    "peak_memory_mib",
)
UNFINISHED = "It is not finished: no results, and no word of a failure."


@dataclass(frozen=True)
class Run:
    """A run's folder, with results or the reason why there are none.

    Attributes
    ----------
    folder : Path
    settings : dict or None
        None where they are not known.
    result : dict or None
        Of results.json.
    problem : str or None
    """

    folder: Path
    settings: dict | None
    result: dict | None
    problem: str | None


@dataclass
class Row:
    """Runs that differ in seed and fold only.

    Attributes
    ----------
    settings : dict
    label : str
        The method, and what tells it from other rows of the same method.
    runs, missing : list of Run
    """

    settings: dict
    label: str = ""
    runs: list = field(default_factory=list)
    missing: list = field(default_factory=list)

    @property
    def method(self):
        """The method's name."""
        return self.settings["method"]

    @property
    def few_shot(self):
        """Training clips per class, None for all."""
        return self.settings["few_shot"]

    def values(self, metric, split="test"):
        """The metric of every run."""
        return [run.result["metrics"][split][metric] for run in self.runs]

    def mean(self, metric, split="test"):
        """The metric's mean, as shown."""
        return statistics.mean(self.values(metric, split)) * scale(metric)

    def std(self, metric, split="test"):
        """The metric's standard deviation, as shown; None for one run."""
        values = self.values(metric, split)
        return statistics.stdev(values) * scale(metric) if len(values) > 1 else None

    @cached_property
    def trained(self):
        """Trained parameters: `{petl, norms, head}`."""
        sizes = self.runs[0].result["parameters"]
        return {key: sizes[key] for key in ("petl", "norms", "head")}

    @property
    def stored(self):
        """Bytes of the adapter file, or None."""
        path = self.runs[0].folder / TENSORS
        return path.stat().st_size if path.exists() else None

    @property
    def seconds(self):
        """Of one run, on average."""
        return statistics.mean(run.result["seconds"] for run in self.runs)

    @property
    def peak(self):
        """MiB, of the run that needed most."""
        return max(run.result["peak_memory_mib"] for run in self.runs)


@dataclass
class Task:
    """A recipe's rows, and those of papers.

    Attributes
    ----------
    name : str
    metric : str
    rows : list of Row
        With at least one finished run each.
    published : list of dict
    """

    name: str
    metric: str
    rows: list
    published: list


def runs_below(folder):
    """All runs below a folder.

    Raises
    ------
    UserError
        If there are none.
    """
    root = Path(folder)
    marks = (HPARAMS, RESULTS, FAILURE)
    homes = {path.parent for mark in marks for path in root.glob(f"**/{mark}")}
    if not homes:
        raise UserError(f"There is no {RESULTS} below {folder}.")
    return [read_run(home) for home in sorted(homes)]


def read_run(folder):
    """The run in a folder."""
    settings = result = problem = None
    try:
        settings = load_config(folder / HPARAMS).settings()
        result = read_results(folder / RESULTS)
    except UserError as error:
        problem = str(error)
    return told(Run(folder, settings, result, problem))


def read_job(job):
    """The run of a `petl_modules.grid.jobs.Job`."""
    result = problem = None
    try:
        result = job.results()
    except UserError as error:
        problem = str(error)
    return told(Run(job.folder, job.config.settings(), result, problem))


def write_report(runs, root, output=None, metric=None):
    """Print the tables of runs, and write them with plots into a folder.

    Arguments
    ---------
    runs : list of Run
    root : Path
        That folders are named from.
    output : Path or None
    metric : str or None
        One of those in results.json; None takes the one that chose the epoch.

    Returns
    -------
    int
        The exit status: 1 if results are missing.

    Raises
    ------
    UserError
        If there are no results at all, or not of this metric.
    """
    missing = [run for run in runs if run.result is None]
    for run in missing:
        print(f"error: {named(run, root)}: {run.problem}", file=sys.stderr)
    tasks = tasks_of(runs, metric)
    if not tasks:
        raise UserError(f"There are no finished runs below {root}.")
    text = markdown(tasks, missing, root)
    print(text)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        text += "\n" + draw(tasks, output)
        write_text(output / "report.md", text)
        for task in tasks:
            write_csv(task, output / f"{slug(task.name)}.csv")
        print(f"Report, tables and plots: {output}", file=sys.stderr)
    return 1 if missing else 0


def tasks_of(runs, metric=None):
    """Runs as tasks and rows, in the order of names and of the methods' table."""
    rows = {}
    for run in runs:
        if run.settings is not None:
            row = rows.setdefault(identity(run.settings), Row(run.settings))
            (row.missing if run.result is None else row.runs).append(run)
    groups = defaultdict(list)
    for row in rows.values():
        if row.runs:
            groups[task_name(row.settings)].append(row)
    tasks = []
    for name, group in sorted(groups.items()):
        label(group)
        group.sort(key=place)
        chosen = metric_of(group, metric)
        tasks.append(Task(name, chosen, group, published(group[0].settings, chosen)))
    return tasks


def markdown(tasks, missing, root):
    """Everything that is said in words and tables."""
    parts = [f"## {task.name}\n\n{task_table(task)}" for task in tasks]
    if len(tasks) > 1:
        parts.insert(0, f"## Average over tasks\n\n{average_table(tasks)}")
    if missing:
        lines = [f"- {named(run, root)}: {run.problem}" for run in missing]
        parts.append("## Missing, and in no mean\n\n" + "\n".join(lines))
        parts.append("What is of fewer runs than it should be is in bold.")
    return "\n\n".join(parts) + "\n"


def task_table(task):
    """The methods of one task."""
    few_shot = any(row.few_shot is not None for row in task.rows)
    heads, rows = columns(task, few_shot), []
    told = set()
    for at, row in enumerate(task.rows):
        rows.append(our_cells(task, row, few_shot))
        last = all(other.method != row.method for other in task.rows[at + 1 :])
        if last:
            told.add(row.method)
            rows += published_cells(task, row.method, few_shot)
    for method in method_table():
        if method not in told:
            rows += published_cells(task, method, few_shot)
    return "\n".join(map(line, [heads, ["---"] * len(heads), *rows]))


def average_table(tasks):
    """Methods by tasks, and the mean over all tasks of those that have them all."""
    better = [task for task in tasks if not lower_is_better(task.metric)]
    names = {}
    for task in tasks:
        for row in task.rows:
            names.setdefault((row.label, row.few_shot), {})[task.name] = row
    few_shot = any(shots is not None for _, shots in names)
    heads = ["method", *(["few-shot"] if few_shot else [])]
    heads += ["trained, without head"]
    heads += [f"{task.name}, {unit(task.metric)}" for task in tasks]
    heads += ["average" if better == tasks else "average, without error rates"]
    rows = []
    for (name, shots), found in names.items():
        sizes = {row.trained["petl"] + row.trained["norms"] for row in found.values()}
        size = f"{sizes.pop():,}" if len(sizes) == 1 else "differs"
        cells = [name, *([str(shots or "all")] if few_shot else []), size]
        for task in tasks:
            row = found.get(task.name)
            text = mean_and_std(row, task.metric) if row else ""
            cells.append(f"**{text}**" if row and row.missing else text)
        whole = better and all(task.name in found for task in better)
        means = [found[task.name].mean(task.metric) for task in better] if whole else []
        rows.append([*cells, f"{statistics.mean(means):.2f}" if means else ""])
    return "\n".join(map(line, [heads, ["---"] * len(heads), *rows]))


def write_csv(task, path):
    """One task's table, as numbers."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(CSV_COLUMNS)
        for row in task.rows:
            writer.writerow(
                [
                    task.name,
                    row.label,
                    row.few_shot,
                    short(row.settings["source"]),
                    "ours",
                    len(row.runs),
                    len(row.missing),
                    task.metric,
                    row.mean(task.metric),
                    row.std(task.metric),
                    row.mean(task.metric, "valid"),
                    sum(row.trained.values()),
                    row.stored,
                    round(row.seconds, 2),
                    row.peak,
                ]
            )
        for entry in task.published:
            cells = [task.name, published_label(entry), "", entry["backbone"]]
            cells += [f"published: {entry['source']}", "", "", task.metric]
            cells += [entry["value"], "", "", entry["parameters"], "", "", ""]
            writer.writerow(cells)


def draw(tasks, output):
    """Write the plots; returns the markdown that shows them."""
    shown = [plots.trade_off(tasks, output / "trade_off")]
    curves = [task for task in tasks if len({row.few_shot for row in task.rows}) > 1]
    if curves:
        shown.append(plots.few_shot_curves(curves, output / "few_shot"))
    for task in tasks:
        for row in task.rows:
            pairs = [pair for run in row.runs for pair in predictions(run.folder)]
            if pairs:
                shots = "" if row.few_shot is None else f" {row.few_shot}-shot"
                name = f"{task.name} {row.label}{shots}"
                stem = output / f"confusions_{slug(name)}"
                shown.append(plots.confusions(pairs, name, stem))
    lines = [f"![{path.stem}]({path.name})" for path in shown]
    return "## Plots\n\n" + "\n\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="A folder with runs in it, at any depth.")
    metric = "A metric of results.json, such as macro_f1, instead of the main one."
    add("metric", metavar="METRIC", nargs="?", help=metric)
    add("--output", type=Path, help="A folder for tables and plots.")
    options = parser.parse_args(argv)
    root = Path(options.folder)
    return write_report(runs_below(root), root, options.output, options.metric)


# Helpers


def told(run):
    """The run, with the reason if it has no results of a test."""
    if run.problem is not None:
        return run
    if run.result is not None:
        if "test" in run.result["metrics"]:
            return run
        problem = "It was not tested (test=False)."
    else:
        problem = failure(run.folder) or UNFINISHED
    return Run(run.folder, run.settings, None, problem)


def identity(settings):
    """What runs share that are averaged."""
    kept = {k: v for k, v in settings.items() if k not in HARMLESS | REPEATED}
    return tuple(sorted((key, repr(value)) for key, value in kept.items()))


def label(rows):
    """Name the rows of one task by their methods and what tells them apart."""
    for row in rows:
        others = [other for other in rows if other.method == row.method]
        different = [
            f" {key}={as_text(value)}"
            for key, value in row.settings.items()
            if key not in HARMLESS | REPEATED | OWN_COLUMN
            and value is not None
            and any(other.settings.get(key) != value for other in others)
        ]
        row.label = row.method + "".join(different)


def place(row):
    """Where a row stands: by clips per class, the methods' table, and label."""
    shots = float("inf") if row.few_shot is None else row.few_shot
    return shots, [*method_table()].index(row.method), row.label


def task_name(settings):
    """The recipe, and its task where it has several."""
    return " ".join(filter(None, [settings["recipe"], settings.get("task")]))


def metric_of(rows, wanted):
    """The metric that a task's table shows."""
    known = rows[0].runs[0].result["metrics"]["test"]
    if wanted is None:
        return main_metric(rows[0].settings, known)
    if wanted not in known:
        raise UserError(
            f"There is no metric {wanted} of {task_name(rows[0].settings)}, but "
            f"{', '.join(known)}."
        )
    return wanted


def published(settings, metric):
    """The figures of papers for a task."""
    with open(PUBLISHED, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    task = settings.get("task") or ""
    return [
        row
        for row in rows
        if (row["recipe"], row["task"], row["metric"])
        == (settings["recipe"], task, metric)
    ]


def columns(task, few_shot):
    """The heads of a task's table."""
    return [
        "method",
        *(["few-shot"] if few_shot else []),
        "backbone",
        "runs",
        f"test {unit(task.metric)}",
        f"valid {unit(task.metric)}",
        "trained",
        "stored, kB",
        "seconds a run",
        "peak MiB",
    ]


def our_cells(task, row, few_shot):
    """A row of a task's table."""
    done, asked = len(row.runs), len(row.runs) + len(row.missing)
    return [
        row.label,
        *([str(row.few_shot or "all")] if few_shot else []),
        short(row.settings["source"]),
        str(done) if done == asked else f"**{done} of {asked}**",
        mean_and_std(row, task.metric),
        mean_and_std(row, task.metric, "valid"),
        f"{sum(row.trained.values()):,}",
        "" if row.stored is None else f"{row.stored / 1000:,.0f}",
        f"{row.seconds:,.0f}",
        f"{row.peak:,.0f}",
    ]


def published_cells(task, method, few_shot):
    """The rows of papers for one method."""
    return [
        [
            f"*{published_label(entry)}, published, {entry['source']}*",
            *(["*all*"] if few_shot else []),
            f"*{entry['backbone']}*",
            "",
            f"*{entry['value']}*",
            "",
            f"*{entry['parameters']}*" if entry["parameters"] else "",
            *[""] * 3,
        ]
        for entry in task.published
        if entry["method"] == method
    ]


def published_label(entry):
    """A method of a paper, with its setting."""
    return f"{entry['method']} {entry['setting']}".strip()


def mean_and_std(row, metric, split="test"):
    """`mean ± standard deviation`, or the only value."""
    mean, std = row.mean(metric, split), row.std(metric, split)
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def predictions(folder):
    """`(label, prediction)` of every test clip; none for other tasks, and for a damaged
    file, which is named."""
    path = folder / PREDICTIONS
    if not path.exists():
        return []
    try:
        rows = read_table(path, ("label", "prediction"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return []
    return [(row["label"], row["prediction"]) for _, row in rows]


def named(run, root):
    """A run's folder as people know it."""
    inside = run.folder.is_relative_to(root)
    return str(run.folder.relative_to(root) if inside else run.folder)


def short(text):
    """The last part of a path."""
    return Path(str(text)).name


def slug(text):
    """A text as a file's name."""
    return "".join(c if c.isalnum() or c in "-=." else "_" for c in text)


def line(cells):
    """A row of a markdown table."""
    return f"| {' | '.join(cells)} |"
