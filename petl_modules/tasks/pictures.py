"""Pictures of what a model predicts."""

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from sklearn.metrics import ConfusionMatrixDisplay

MOST_NUMBERS = 15  # classes up to which a confusion matrix says its numbers


def confusion_matrix(targets, guesses, labels, names=None, normalize=None):
    """A figure of how often each class is taken for each.

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
    size = max(4.0, 0.42 * len(labels) + 2.0)
    figure, axes = pyplot.subplots(figsize=(size, size), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        targets,
        guesses,
        labels=labels,
        display_labels=names or labels,
        normalize=normalize,
        values_format=None if normalize is None else ".0%",
        include_values=normalize is None or len(labels) <= MOST_NUMBERS,
        xticks_rotation="vertical",
        cmap="Blues",
        colorbar=False,
        ax=axes,
    )
    return figure
