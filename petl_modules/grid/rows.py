"""Runs as rows of a table: what is averaged, what it is called, and how sure it is."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from petl_modules.errors import UserError
from petl_modules.grid.intervals import Interval, bootstrap, over_runs, wilson
from petl_modules.grid.published import Figure, Paper, figures, of_same_data
from petl_modules.grid.runs import Run
from petl_modules.methods import method_table
from petl_modules.tasks.metrics import lower_is_better, main_metric, scale
from petl_modules.train.labels import shown
from petl_modules.train.results import HARMLESS
from petl_modules.use.adapter_file import TENSORS

REPEATED = {"seed", "fold"}
OWN_COLUMN = {"method", "few_shot", "source", "recipe", "dataset", "task"}
OF_CLIPS = "accuracy"  # the metric that is a mean over clips
PROBE = "linear"


@dataclass
class Row:
    """Runs that differ in seed and fold only.

    Attributes
    ----------
    settings : dict
    label : str
        The method, and what tells it from other rows of the same method.
    full_label : str
        The label, and the backbone's name where there are several beside each other.
    runs, missing : list of Run
    probe : Row or None
        The linear probe's row that this one is compared with.
    """

    settings: dict
    label: str = ""
    full_label: str = ""
    runs: list[Run] = field(default_factory=list)
    missing: list[Run] = field(default_factory=list)
    probe: "Row | None" = None

    @property
    def method(self) -> str:
        """The method's name."""
        return self.settings["method"]

    @property
    def backbone(self) -> str:
        """Its name: the last part of its path."""
        return Path(str(self.settings["source"])).name

    @property
    def few_shot(self) -> int | None:
        """Training clips per class, None for all."""
        return self.settings["few_shot"]

    def values(self, metric: str, split: str = "test") -> list[float]:
        """The metric of every run, as shown."""
        by = scale(metric)
        return [run.result["metrics"][split][metric] * by for run in self.runs]

    def mean(self, metric: str, split: str = "test") -> float:
        """The metric's mean over runs, as shown."""
        return statistics.mean(self.values(metric, split))

    def by(self, key: str, metric: str) -> list[float]:
        """The metric's means over the runs of one seed (`key="seed"`), or one fold."""
        groups = defaultdict(list)
        for run, value in zip(self.runs, self.values(metric), strict=True):
            groups[getattr(run, key)].append(value)
        return [statistics.mean(group) for group in groups.values()]

    def spread(self, key: str, metric: str) -> float | None:
        """The standard deviation of the means of seeds (`key="seed"`) or folds; None
        where there is one."""
        means = self.by(key, metric)
        return statistics.stdev(means) if len(means) > 1 else None

    def error(self, metric: str) -> float | None:
        """The length of an error bar: the deviation over seeds, or else over folds."""
        over_seeds = self.spread("seed", metric)
        return self.spread("fold", metric) if over_seeds is None else over_seeds

    def interval(self, metric: str) -> Interval | None:
        """Where the mean lies with 95 %, as shown: over clips if each is right or
        wrong, otherwise over seeds; None where too little is known."""
        clips = self.clips if metric == OF_CLIPS else None
        if not clips:
            return over_runs(self.by("seed", metric))
        whole = all(score in (0, 1) for score in clips.values())
        scores = [*clips.values()]
        found = wilson(round(sum(scores)), len(scores)) if whole else bootstrap(scores)
        return found[0] * scale(metric), found[1] * scale(metric)

    def above_probe(self, metric: str) -> tuple[float, Interval | None] | None:
        """The paired difference to the linear probe, as shown, and its interval: over
        clips that both were tested on, or over runs of one seed and fold."""
        if self.probe is None or self.probe is self:
            return None
        ours, theirs = self.clips, self.probe.clips
        if metric == OF_CLIPS and ours and theirs and ours.keys() == theirs.keys():
            gains = [(ours[clip] - theirs[clip]) * scale(metric) for clip in ours]
            return statistics.mean(gains), bootstrap(gains)
        probe = {
            (run.seed, run.fold): value
            for run, value in zip(
                self.probe.runs, self.probe.values(metric), strict=True
            )
        }
        gains = [
            value - probe[run.seed, run.fold]
            for run, value in zip(self.runs, self.values(metric), strict=True)
            if (run.seed, run.fold) in probe
        ]
        return (statistics.mean(gains), over_runs(gains)) if gains else None

    @cached_property
    def clips(self) -> dict[str, float] | None:
        """How often each test clip was right, over the seeds; None if not known."""
        right = defaultdict(list)
        for run in self.runs:
            try:
                rows = run.predictions
            except UserError:
                return None
            if rows is None:
                return None
            for clip, label, prediction in rows:
                right[clip].append(float(label == prediction))
        return {clip: statistics.mean(scores) for clip, scores in right.items()}

    @cached_property
    def trained(self) -> dict[str, int]:
        """Trained parameters: `{petl, norms, head}`."""
        sizes = self.runs[0].result["parameters"]
        return {key: sizes[key] for key in ("petl", "norms", "head")}

    @property
    def rank(self) -> str:
        """The rank that was used, of sites that differ all of them; where training left
        each its own, their mean over the runs, and the one that they began with; empty
        for a method that has none, and for runs that did not say."""
        used = [run.result.get("effective", {}) for run in self.runs]
        rank = used[0].get("rank", "")
        if left := [r for sizes in used for r in sizes.get("ranks", {}).values()]:
            return f"{statistics.mean(left):.3g} of {rank}"
        return ", ".join(map(str, rank)) if isinstance(rank, list) else str(rank)

    @property
    def stored(self) -> int | None:
        """Bytes of the adapter file, or None."""
        path = self.runs[0].folder / TENSORS
        return path.stat().st_size if path.exists() else None

    @property
    def seconds(self) -> float:
        """Of one run, on average."""
        return statistics.mean(run.result["seconds"] for run in self.runs)

    @property
    def peak(self) -> float:
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
    published : list of Figure
        Of the same data.
    not_beside : str
        A sentence on figures of other data, where there are any.
    """

    name: str
    metric: str
    rows: list[Row]
    published: list[Figure]
    not_beside: str = ""


def tasks_of(
    runs: Sequence[Run], metric: str | None = None, paper: Paper | None = None
) -> list[Task]:
    """Runs as tasks and rows, in the order of names and of the methods' table.

    Arguments
    ---------
    runs : list of Run
    metric : str or None
        One of those in results.json; None takes the one that chose the epoch.
    paper : Paper or None
        Whose printed metrics are taken in the place of that one, a task for each.

    Raises
    ------
    UserError
        For a metric that a task does not have.
    """
    rows = {}
    for run in runs:
        if run.settings is not None:
            key = task_name(run), identity(run.settings)
            row = rows.setdefault(key, Row(run.settings))
            (row.missing if run.result is None else row.runs).append(run)
    groups = defaultdict(list)
    for (name, _), row in rows.items():
        if row.runs:
            groups[name].append(row)
    several = any(len({r.backbone for r in group}) > 1 for group in groups.values())
    tasks = []
    for name, group in sorted(groups.items()):
        label(group)
        for row in group:
            row.full_label = f"{row.label} {row.backbone}" if several else row.label
        group.sort(key=place)
        classes = {row.runs[0].classes for row in group} - {None}
        for at, chosen in enumerate(metrics_of(name, group, metric, paper)):
            rows = [replace(row) for row in group]
            for row in rows:
                row.probe = probe_of(row, rows, chosen)
            called = f"{name}, {chosen}" if at else name
            printed = figures(rows[0].settings, chosen)
            tasks.append(Task(called, chosen, rows, *of_same_data(printed, classes)))
    return tasks


# Helpers


def identity(settings: dict) -> tuple[tuple[str, str], ...]:
    """What runs share that are averaged."""
    kept = {k: v for k, v in settings.items() if k not in HARMLESS | REPEATED}
    return tuple(sorted((key, repr(value)) for key, value in kept.items()))


def label(rows: Sequence[Row]) -> None:
    """Name the rows of one task: as a benchmark's file does, or by their methods and
    what tells them apart."""
    names = [row.runs[0].name or row.method for row in rows]
    for row, name in zip(rows, names, strict=True):
        same = [r for r, other in zip(rows, names, strict=True) if other == name]
        apart = [
            shown(key, value)
            for key, value in row.settings.items()
            if key not in HARMLESS | REPEATED | OWN_COLUMN
            and value is not None
            and any(other.settings.get(key) != value for other in same)
        ]
        row.label = " ".join([name, *apart])


def probe_of(row: Row, rows: Sequence[Row], metric: str) -> Row | None:
    """The linear probe of the same data and backbone, whose head has no adapters: of
    several, the one that validated best."""
    found = [
        other
        for other in rows
        if other.method == PROBE
        and not other.settings.get("layer_adapters")
        and all(
            other.settings.get(k) == row.settings.get(k) for k in ("few_shot", "source")
        )
    ]
    best = min if lower_is_better(metric) else max
    return best(found, key=lambda r: r.mean(metric, "valid")) if found else None


def place(row: Row) -> tuple[float, int, str]:
    """Where a row stands: by clips per class, the methods' table, and label."""
    shots = float("inf") if row.few_shot is None else row.few_shot
    return shots, [*method_table()].index(row.method), row.label


def task_name(run: Run) -> str:
    """What a benchmark calls it, or the recipe, and its task where it has several."""
    settings = run.settings
    return run.task or " ".join(
        filter(None, [settings["recipe"], settings.get("task")])
    )


def metrics_of(
    name: str, rows: Sequence[Row], wanted: str | None, paper: Paper | None
) -> list[str]:
    """The metrics that a task's tables show, one or more."""
    settings, known = rows[0].settings, rows[0].runs[0].result["metrics"]["test"]
    if wanted is not None and wanted not in known:
        raise UserError(
            f"There is no metric {wanted} of {name}, but {', '.join(known)}."
        )
    chose = wanted or main_metric(settings, known)
    if wanted is not None or paper is None:
        return [chose]
    printed = [m for m in known if any(map(paper.printed, figures(settings, m)))]
    return sorted(printed, key=lambda m: m != chose) or [chose]
