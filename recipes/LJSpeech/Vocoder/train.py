"""A vocoder on LJSpeech: `python train.py --data_folder=FOLDER --out=FOLDER`.

Sentences that TTS holds out, by the same numbers and seed, are held out here too. A
run that was stopped goes on when the command is given again.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "TTS"))

import torch
from ljspeech_prepare import HELD_OUT, prepare_speech

from petl_modules.console import quiet, refusing
from petl_modules.tts.config import FastSpeech2Config
from petl_modules.tts.features import SpeechFeatures
from petl_modules.tts.hifigan import HifiganConfig
from petl_modules.tts.vocoder_training import (
    Recordings,
    VocoderTrainer,
    VocoderTraining,
)


def main() -> None:
    """Train, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data_folder", required=True)
    add("--out", required=True, type=Path)
    add("--sample_rate", type=int, default=16000)
    add("--valid_sentences", type=int, default=HELD_OUT)
    add("--test_sentences", type=int, default=HELD_OUT)
    add("--seconds", type=float, help="stop after so many; the next call goes on")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for field in fields(VocoderTraining):
        add(f"--{field.name}", type=field.type, default=field.default)
    options = vars(parser.parse_args())
    training = {f.name: options[f.name] for f in fields(VocoderTraining)}
    held_out = {name: options[name] for name in ("valid_sentences", "test_sentences")}
    quiet()
    with refusing():
        splits, _ = prepare_speech(options["data_folder"], training["seed"], **held_out)
        wavs = [entry["wav"] for entry in splits["train"].values()]
        sizes = FastSpeech2Config(sample_rate=options["sample_rate"]).features
        trainer = VocoderTrainer(
            HifiganConfig(sizes), VocoderTraining(**training), options["device"]
        )
        trainer.take_up(options["out"])
        features, device = SpeechFeatures(**sizes), options["device"]
        recordings = Recordings(wavs, features, device, training["segment"])
        trainer.fit(recordings, options["out"], options["seconds"])


if __name__ == "__main__":
    main()
