"""Judges a backbone by a linear probe on a data set in ESC-50's layout.

    python -m petl_modules.embedded.probe --data_folder=ESC-50 [--source=FOLDER]

The mean over a clip's tokens after the last LayerNorm, standardised, goes into a
multinomial logistic regression, trained on all folds but one and tested on that one.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from petl_modules.backbones import load_backbone
from petl_modules.data import read_clip
from petl_modules.embedded import MODEL_FOLDER

RATE = 16000


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--source", default=str(MODEL_FOLDER))
    options = parser.parse_args(arguments)
    wavs, labels, folds = read(Path(options.data_folder))
    for name, random in (("pretrained", False), ("random weights", True)):
        features = embed(options.source, wavs, random)
        scores = five_folds(features, labels, folds)
        print(
            f"{name}: {np.mean(scores):.4f} +- {np.std(scores):.4f} "
            f"({', '.join(f'{score:.3f}' for score in scores)})"
        )


def read(folder):
    """Waveforms at 16 kHz, at most 5 s, labels and folds."""
    table = next((folder / "meta").glob("*.csv"))
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    wavs = []
    for row in tqdm(rows, "reading", leave=False):
        clip = read_clip(folder / "audio" / row["filename"], RATE)
        wavs.append(clip[: 5 * RATE])
    names = sorted({row["category"] for row in rows})
    labels = torch.tensor([names.index(row["category"]) for row in rows])
    folds = torch.tensor([int(row["fold"]) for row in rows])
    return wavs, labels, folds


def embed(source, wavs, random):
    """Mean tokens `(clips, hidden)` after the last LayerNorm."""
    torch.manual_seed(0)
    backbone = load_backbone(source, pretrained=not random)
    with torch.inference_mode():
        clips = tqdm(wavs, "embedding", leave=False)
        return torch.cat([backbone(wav[None]).hidden.mean(1) for wav in clips])


def five_folds(features, labels, folds, penalty=1e-2):
    """Accuracy on every fold of a regression trained on the others."""
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

        def loss(x=x, train=~test, weight=weight, bias=bias, optimizer=optimizer):
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
    main()
