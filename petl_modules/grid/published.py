"""What papers printed: their figures, and the protocols that these are of."""

import csv
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).parent.parent / "hparams" / "published.csv"


@dataclass(frozen=True)
class Figure:
    """One printed figure.

    Attributes
    ----------
    recipe, task, metric : str
        What it is of; task is empty where a recipe has one only.
    method, setting : str
        The row of the table.
    few_shot : str
        Training clips per class; empty for all.
    classes : str
        That are told apart; empty where that is not known, or not the task.
    backbone, parameters, value : str
        As printed; value in percent.
    protocol : str
        How it was measured.
    source : str
    """

    recipe: str
    task: str
    metric: str
    method: str
    setting: str
    few_shot: str
    classes: str
    backbone: str
    parameters: str
    value: str
    protocol: str
    source: str

    @property
    def label(self) -> str:
        """The method with its setting."""
        return f"{self.method} {self.setting}".strip()


@dataclass(frozen=True)
class Paper:
    """The table that a benchmark file runs again.

    Attributes
    ----------
    source : str
        Such as arXiv 2312.03694.
    table : str
        Which of its tables or figures.
    backbone : str
        As `Figure` names it.
    protocol : str
        What the paper did, and the file does.
    deviations : tuple of str
        In what runs differ from it all the same.
    switches : tuple of str
        Deviations that can be switched back, and how.
    not_offered : tuple of str
        What the released code does and no switch brings back.
    """

    source: str
    table: str
    backbone: str
    protocol: str
    deviations: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    not_offered: tuple[str, ...] = ()

    def printed(self, figure: Figure) -> bool:
        """Whether a figure is of this paper and backbone."""
        return (figure.source, figure.backbone) == (self.source, self.backbone)

    def markdown(self) -> str:
        """What is said once above the tables."""
        parts = [
            f"Printed figures: {self.source}, {self.table}, with {self.backbone}.",
            f"Protocol: {self.protocol.strip()}",
        ]
        for head, lines in (
            ("Ours differs in:", self.deviations),
            ("Which can be switched back:", self.switches),
            ("Of the released code not offered, since it would be a fault:",
             self.not_offered),
        ):  # fmt: skip
            if lines:
                parts.append("\n".join([head, "", *(f"- {line}" for line in lines)]))
        return "\n\n".join(parts)


def figures(settings: dict[str, Any], metric: str) -> list[Figure]:
    """The printed figures of a run's task.

    Arguments
    ---------
    settings : dict
        With recipe, and task where the recipe has several.
    metric : str
    """
    with open(PUBLISHED, encoding="utf-8", newline="") as stream:
        rows = [Figure(**row) for row in csv.DictReader(stream)]
    asked = settings["recipe"], settings.get("task") or "", metric
    return [row for row in rows if (row.recipe, row.task, row.metric) == asked]


def of_same_data(
    found: Iterable[Figure], classes: Collection[int]
) -> tuple[list[Figure], str]:
    """Figures that may stand beside runs, and a sentence on those that may not, since
    they are of other data, such as a subset's whole.

    Arguments
    ---------
    found : list of Figure
    classes : collection of int
        How many classes the runs tell apart.
    """
    kept, others = [], {}
    for figure in found:
        if not figure.classes or set(classes) <= {int(figure.classes)}:
            kept.append(figure)
        else:
            others[figure.classes] = figure.source
    if not others:
        return kept, ""
    theirs = ", ".join(f"{count} classes ({own})" for count, own in others.items())
    ours = " and ".join(map(str, sorted(classes)))
    return kept, f"No printed figures of {theirs} stand here: the runs are of {ours}."


def beside(
    found: Iterable[Figure], paper: Paper, label: str, few_shot: int | None
) -> Figure | None:
    """What a paper printed in a row, or None if that is not known."""
    for figure in filter(paper.printed, found):
        if (figure.label, figure.few_shot) == (label, str(few_shot or "")):
            return figure
    return None


def protocols(found: Iterable[Figure]) -> str:
    """A sentence about figures that stand beside runs of another protocol; empty if
    there are none."""
    said = dict.fromkeys(f"{f.backbone}: {f.protocol} ({f.source})" for f in found)
    if not said:
        return ""
    return (
        "Figures in italics are printed ones, each of a protocol of its own, which the "
        f"runs need not share. {'; '.join(said)}."
    )
