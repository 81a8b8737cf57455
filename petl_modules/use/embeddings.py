"""What a trained adapter makes of recordings: one vector each, and a picture of them.

`petl embed ADAPTER [DATA]`: DATA is a folder of recordings (the folder that one is in
gives its colour), a manifest in JSON, or a csv table with a column wav. Without it, the
run's own test clips are taken, or those of --split. A vector is what the classifier
reads: the mean of the tokens, after projector and weighted sum where there are such, or
what learned attention pools them to.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from petl_modules.console import Parser, progress_bar
from petl_modules.core.masking import masked_mean, valid
from petl_modules.errors import UserError, known_device, one_of
from petl_modules.files import make_folder, whole, write_figure
from petl_modules.tasks.head import Head
from petl_modules.tasks.heads import ClassificationHead
from petl_modules.use.adapter_file import Adapter, read_adapter
from petl_modules.use.labelled import (
    Entries,
    add_recordings,
    batches_of,
    dataset_of,
    entries_of,
)

Projection = Literal["pca", "tsne"]
MOST_COLOURS = 20


def main(argv: list[str] | None = None) -> int:
    """Write vectors and a picture; returns the exit status."""
    parser = Parser(__doc__)
    add_recordings(parser, "Recordings.")
    add = parser.add_argument
    out = "Where the vectors go; the picture beside them (%(default)s)."
    add("--output", type=Path, default=Path("embeddings.npz"), help=out)
    how = "How the picture is made: pca or tsne (%(default)s)."
    add("--projection", default="pca", help=how)
    options = parser.parse_args(argv)
    one_of("projection", options.projection, ("pca", "tsne"))
    output = options.output.with_suffix(".npz")
    make_folder(output.parent)
    found = embeddings(
        options.adapter,
        options.data,
        options.split,
        options.source,
        options.batch_size,
        options.device,
        progress=True,
    )
    figure = picture(found["embeddings"], found["labels"], options.projection)
    with whole(output) as partial:
        np.savez(partial, **found)
    write_figure(output.with_suffix(".png"), figure, dpi=120)
    pyplot.close(figure)
    count, size = found["embeddings"].shape
    print(f"{output}: {count} vectors of {size} numbers; {output.with_suffix('.png')}")
    return 0


def embeddings(
    folder: str | Path,
    data: str | Path | None = None,
    split: str = "test",
    source: str | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """A vector for each of some recordings.

    Arguments
    ---------
    folder : str or Path
        Of a run, with adapter.safetensors and adapter.json.
    data, split
        As of `petl_modules.use.labelled.entries_of`; labels need not be those of the
        adapter.
    source, batch_size, device, progress
        As of `petl_modules.use.evaluate.evaluate`.

    Returns
    -------
    dict
        ids `(clips,)`, labels `(clips,)`, empty where there are none, and embeddings
        `(clips, size)`, float32.

    Raises
    ------
    UserError
        For an adapter or data that cannot be used.
    """
    entries = entries_of(folder, data, split)
    adapter = read_adapter(folder, source=source)
    if not isinstance(adapter.head, Head):
        raise UserError(f"The adapter {folder} has no classifier that reads vectors.")
    ids, vectors = vectors_of(adapter, entries, batch_size, device, progress)
    labels = [label_of(entries[key]) for key in ids]
    return {
        "ids": np.array(ids),
        "labels": np.array(labels),
        "embeddings": vectors.numpy(),
    }


@torch.no_grad()
def vectors_of(
    adapter: Adapter,
    entries: Entries,
    batch_size: int = 16,
    device: str = "cpu",
    progress: bool = False,
) -> tuple[list[str], Tensor]:
    """The ids of entries, and what the adapter's classifier reads of each, `(clips,
    size)`, float32; arguments are those of `embeddings`."""
    device = known_device(device)
    model, head = adapter.model.to(device).eval(), adapter.head.to(device).eval()
    dataset = dataset_of(entries, model.backbone.sample_rate, adapter.max_duration)
    dataset.set_output_keys(["id", "sig"])
    ids, rows = [], []
    bar = progress_bar(total=len(dataset), desc="clips", shown=progress)
    for batch in batches_of(dataset, batch_size, model.backbone):
        batch = batch.to(device)
        sound = batch.sig
        tokens = model(sound.data, sound.lengths, all_layers=head.weighted_sum)
        if isinstance(head, ClassificationHead):
            vectors = head.vector(tokens)
        else:
            features, counts = head.features(head.layers(tokens))
            steps = head.combine(features)
            mask = valid(counts.to(steps.device), steps.shape[1])
            vectors = masked_mean(steps, mask)
        rows.append(vectors.float().cpu())
        ids += batch.id
        bar.update(len(batch.id))
    bar.close()
    return ids, torch.cat(rows)


def label_of(entry: dict[str, Any]) -> str:
    """What a recording is coloured by: its label, or all that it has."""
    return str(entry.get("label", " + ".join(entry.get("labels", ()))))


def picture(vectors: np.ndarray, labels: np.ndarray, projection: Projection) -> Figure:
    """Vectors in two dimensions, coloured by label.

    Arguments
    ---------
    vectors : numpy.ndarray
        `(clips, size)`.
    labels : numpy.ndarray
        `(clips,)`.
    projection : str
        pca or tsne.

    Raises
    ------
    UserError
        For fewer than three vectors.
    """
    if len(vectors) < 3:
        raise UserError(
            f"A picture needs three recordings or more, not {len(vectors)}."
        )
    if projection == "pca":
        places = PCA(2, random_state=0).fit_transform(vectors)
    else:
        near = min(30.0, (len(vectors) - 1) / 3)
        places = TSNE(2, perplexity=near, random_state=0).fit_transform(vectors)
    figure, axes = pyplot.subplots(figsize=(7, 6), layout="constrained")
    names = sorted(set(labels))
    colours = pyplot.get_cmap("tab20" if len(names) <= MOST_COLOURS else "hsv")
    for i, name in enumerate(names):
        own = places[labels == name]
        colour = colours(i if len(names) <= MOST_COLOURS else i / len(names))
        axes.scatter(*own.T, s=12, color=colour, label=name or "no label")
    if len(names) <= MOST_COLOURS:
        axes.legend(fontsize=7, markerscale=1.5)
    axes.set_title({"pca": "PCA", "tsne": "t-SNE"}[projection])
    axes.set_xticks([])
    axes.set_yticks([])
    return figure
