"""Pictures of what a model predicts."""

from collections.abc import Hashable, Mapping, Sequence

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

# Classes up to which a confusion matrix says its numbers: percentages are wider
MOST_PERCENTAGES, MOST_NUMBERS = 15, 60
MOST_NAMES = 250  # classes up to which it names them
INCHES = 0.42  # of a class, up to MOST_NUMBERS of them; then they are smaller
POINTS = 72  # an inch
BARS = 40  # of a histogram


def confusion_matrix(
    targets: Sequence[Hashable],
    guesses: Sequence[Hashable],
    labels: Sequence[Hashable],
    names: Sequence[str] | None = None,
    normalize: str | None = None,
) -> Figure:
    """A figure of how often each class is taken for each, whose size is bounded.

    Arguments
    ---------
    targets, guesses : sequence
    labels : sequence
        All classes.
    names : list of str or None
        To show for them.
    normalize : str or None
        true: percent of each class.
    """
    count = len(labels)
    size = max(4.0, INCHES * min(count, MOST_NUMBERS) + 2.0)
    figure, axes = pyplot.subplots(figsize=(size, size), layout="constrained")
    most = MOST_NUMBERS if normalize is None else MOST_PERCENTAGES
    ConfusionMatrixDisplay.from_predictions(
        targets,
        guesses,
        labels=labels,
        display_labels=[as_it_is(str(name)) for name in names or labels],
        normalize=normalize,
        values_format=None if normalize is None else ".0%",
        include_values=count <= most,
        xticks_rotation="vertical",
        cmap="Blues",
        colorbar=False,
        ax=axes,
    )
    if count > MOST_NAMES:
        axes.set(xticks=[], yticks=[])
    elif count > MOST_NUMBERS:
        points = 0.8 * POINTS * INCHES * MOST_NUMBERS / count
        axes.tick_params(labelsize=min(10.0, points))
    return figure


def histograms(
    kinds: Mapping[str, np.ndarray], what: str, mark: float | None = None
) -> Figure:
    """A figure of how values of several kinds are spread.

    Arguments
    ---------
    kinds : dict
        `{name: values}`, values `(count,)`.
    what : str
        What the values are.
    mark : float or None
        A value to show.
    """
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    every = np.concatenate(list(kinds.values()))
    edges = np.linspace(every.min(), every.max() + 1e-6, BARS + 1)
    for name, values in kinds.items():
        axes.hist(values, edges, density=True, alpha=0.6, label=name)
    if mark is not None:
        axes.axvline(mark, color="black", linewidth=1)
    axes.set(xlabel=what, yticks=[])
    axes.legend()
    return figure


def as_it_is(text: str) -> str:
    """A text for matplotlib, which would take what is between two dollars for
    mathematics."""
    return text.replace("$", r"\$")
