"""Pictures of synthesised speech."""

from textwrap import fill
from typing import Any

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("Agg")
from matplotlib import pyplot

from petl_modules.tasks.pictures import as_it_is


def spectrograms(row: dict[str, Any]) -> Figure:
    """A synthesised spectrogram below that of the recording.

    Arguments
    ---------
    row : dict
        target and mel, `(frames, bins)`; text, mcd.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = pyplot.subplots(2, figsize=(8, 5), layout="constrained")
    lowest, highest = float(row["target"].min()), float(row["target"].max())
    for ax, name in zip(axes, ("target", "mel"), strict=True):
        ax.imshow(row[name].T, origin="lower", aspect="auto", vmin=lowest, vmax=highest)
        ax.set_title({"target": "recording", "mel": "synthesised"}[name])
        ax.set_ylabel("mel bin")
    axes[1].set_xlabel("frame")
    title = f"{row['text']} (MCD {row['mcd']:.2f} dB)"
    figure.suptitle(as_it_is(fill(title, 90)), fontsize="medium")
    pyplot.close(figure)
    return figure
