"""Judge a backbone by a linear probe on a data set in ESC-50's layout.

`petl probe --data_folder=ESC-50 [--source=FOLDER]`: the mean over a clip's tokens after
the last LayerNorm, standardised, goes into a multinomial logistic regression, trained
on all folds but one and tested on that one.
"""

import statistics
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from petl_modules.backbones import load_backbone
from petl_modules.console import Parser, command, progress_bar
from petl_modules.data import (
    data_folder_of,
    inside,
    read_clip,
    read_table,
    whole_number,
)
from petl_modules.embedded import MODEL_FOLDER
from petl_modules.errors import UserError

RATE = 16000
COLUMNS = ("filename", "fold", "category")
LAYOUT = "clips in audio/, and a csv in meta/ with filename, fold and category."


def main(argv: list[str] | None = None) -> None:
    """Print the accuracies, of the pretrained weights and of random ones."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data_folder", required=True, help=f"The data set: {LAYOUT}")
    source = "The backbone: a folder or hub id; without it, the embedded one."
    add("--source", default=str(MODEL_FOLDER), help=source)
    options = parser.parse_args(argv)
    known = data_folder_of("the data set", options.data_folder, "meta", LAYOUT)
    wavs, labels, folds = read(known)
    for name, random in (("pretrained", False), ("random weights", True)):
        features = embed(options.source, wavs, random)
        scores = five_folds(features, labels, folds)
        print(
            f"{name}: {statistics.mean(scores):.4f} +- "
            f"{statistics.pstdev(scores):.4f} "
            f"({', '.join(f'{score:.3f}' for score in scores)})"
        )


def read(folder: Path) -> tuple[list[Tensor], Tensor, Tensor]:
    """The clips of a data set in ESC-50's layout.

    Arguments
    ---------
    folder : Path

    Returns
    -------
    wavs : list of torch.Tensor
        `(samples,)` at 16 kHz, at most 5 s each.
    labels, folds : torch.Tensor
        `(clips,)`.

    Raises
    ------
    UserError
        For a table that is not there, or rows without what is needed.
    """
    tables = sorted((folder / "meta").glob("*.csv"))
    if not tables:
        raise UserError(f"The data folder {folder} has no table in meta/: {LAYOUT}")
    rows = read_table(tables[0], COLUMNS)
    wavs, names, folds = [], [], []
    for place, row in progress_bar(rows, desc="reading"):
        path = inside(folder / "audio", row["filename"])
        wavs.append(read_clip(path, RATE)[: 5 * RATE])
        names.append(row["category"])
        folds.append(whole_number(place, row, "fold"))
    if len(set(folds)) < 2 or len(set(names)) < 2:
        raise UserError(f"{tables[0]} needs two folds and two categories or more.")
    known = sorted(set(names))
    labels = torch.tensor([known.index(name) for name in names])
    return wavs, labels, torch.tensor(folds)


def embed(source: str, wavs: list[Tensor], random: bool) -> Tensor:
    """Mean tokens `(clips, hidden)` after the last LayerNorm.

    Arguments
    ---------
    source : str
        Backbone: folder or hub id.
    wavs : list of torch.Tensor
        `(samples,)` each.
    random : bool
        Draw the weights instead of reading them.
    """
    torch.manual_seed(0)
    backbone = load_backbone(source, pretrained=not random)
    with torch.inference_mode():
        clips = progress_bar(wavs, desc="embedding")
        return torch.cat([backbone(wav[None]).hidden.mean(1) for wav in clips])


def five_folds(
    features: Tensor, labels: Tensor, folds: Tensor, penalty: float = 1e-2
) -> list[float]:
    """Accuracy on every fold of a regression trained on the others.

    Arguments
    ---------
    features : torch.Tensor
        `(clips, hidden)`.
    labels, folds : torch.Tensor
        `(clips,)`.
    penalty : float
        Of the weights' squares.
    """
    scores = []
    for fold in folds.unique():
        test = folds == fold
        mean, deviation = features[~test].mean(0), features[~test].std(0)
        x = (features - mean) / deviation.clamp(min=1e-6)
        weight = torch.zeros(x.shape[1], int(labels.max()) + 1, requires_grad=True)
        bias = torch.zeros(weight.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=200, line_search_fn="strong_wolfe"
        )

        def loss(
            x: Tensor = x,
            train: Tensor = ~test,
            weight: Tensor = weight,
            bias: Tensor = bias,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(x[train] @ weight + bias, labels[train])
            value = value + penalty * weight.square().sum() / 2
            value.backward()
            return value

        optimizer.step(loss)
        guess = (x[test] @ weight + bias).argmax(1)
        scores.append(float((guess == labels[test]).float().mean()))
    return scores


if __name__ == "__main__":
    command("petl_modules.embedded.probe")
