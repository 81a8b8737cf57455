"""Recordings of a voice that nobody has, for a start without data: sentences by the
base that comes with the package, lower and from a longer throat.

The change is WORLD's (Morise et al., 2016): speech is taken apart into fundamental
frequency, spectral envelope and aperiodicity, the first is scaled, the envelope is
compressed along frequency, and speech is made again.
"""

import csv
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from tqdm import tqdm

from petl_modules.backbones import load_backbone
from petl_modules.files import lock, whole
from petl_modules.tts.backbone import FastSpeech2Backbone
from petl_modules.tts.features import F0_RANGE
from petl_modules.tts.head import voice_head
from petl_modules.tts.text import symbols_of
from petl_modules.tts.vocoder import load_vocoder

BASE, TABLE = "kathleen", "voice.csv"
LOWER, LONGER = 0.62, 1.16  # of fundamental frequency; of the throat
FRAME = 5.0  # ms
SENTENCES = (
    "The old boat came home before the storm.",
    "My sister found a small key under the chair.",
    "We should leave early, because the road is long.",
    "He poured the water slowly into a blue cup.",
    "Nobody had told them about the second door.",
    "A cold wind moved the branches of the tree.",
    "They would rather walk than wait for the bus.",
    "She wrote her name on the first page of the book.",
    "Three men were talking quietly near the fire.",
    "I have never seen such a big fish in this river.",
    "The children asked for another story.",
    "Please put the letters on the table by the window.",
    "It was too dark to read the sign on the wall.",
    "His brother works in a shop at the end of the street.",
    "The train was late again, and the night was cold.",
    "You can hear the birds when the house is quiet.",
    "There was only bread and cheese in the kitchen.",
    "Our teacher knows how to explain hard things.",
    "The young doctor looked at his watch and smiled.",
    "Every summer we go to the same place by the sea.",
)


def made_voice(folder: Path) -> Path:
    """The table of recordings in a folder, with columns path and text; what is not
    there yet is made.

    Arguments
    ---------
    folder : Path
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / TABLE
    with lock(folder / ".lock"):
        if table.is_file():
            return table
        base = load_backbone(BASE)
        rate, vocoder = base.sample_rate, load_vocoder(base.vocoder, base.features)
        rows = [("path", "text")]
        for number, text in enumerate(tqdm(SENTENCES, desc="made voice", leave=False)):
            sound = folder / f"{number + 1:02d}.wav"
            rows.append((sound.name, text))
            if not sound.is_file():
                made = other_voice(vocoder(said(base, text)), rate)
                with whole(sound) as partial:
                    soundfile.write(partial, made, rate, format="WAV")
        with whole(table) as partial, open(partial, "w", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    return table


@torch.no_grad()
def said(base: FastSpeech2Backbone, text: str) -> Tensor:
    """A text by a base's first speaker, a log-mel spectrogram `(frames, n_mels)`."""
    found = [base.symbols[s] for s in symbols_of(text, base.config.text)]
    voice = voice_head(base, list(base.config.speakers))(torch.tensor([0]))
    return base(torch.tensor([found]), torch.tensor([len(found)]), voice).mel[0]


def other_voice(wav: Tensor, rate: int) -> np.ndarray:
    """A sound `(samples,)` at `rate` Hz in another voice."""
    import pyworld  # not where recordings are there already

    signal = wav.double().numpy()
    low, high = F0_RANGE
    f0, times = pyworld.harvest(signal, rate, low, high, FRAME)
    envelope = pyworld.cheaptrick(signal, f0, times, rate)
    noise = pyworld.d4c(signal, f0, times, rate)
    bins = np.arange(envelope.shape[1])
    read = np.minimum(bins * LONGER, bins[-1])
    logs = np.log(envelope)
    warped = np.stack([np.interp(read, bins, frame) for frame in logs])
    made = pyworld.synthesize(f0 * LOWER, np.exp(warped), noise, rate, FRAME)
    return (made / max(1.0, np.abs(made).max())).astype(np.float32)
