"""Write docs/voices, a page to listen to: `python docs/write_voices.py NAME=RUN...`.

Each RUN is the folder of a finished run of speech synthesis, all on the same sentences;
of every speaker the first test sentence is shown: the recording, and what each run made
of it. Before them the base that comes with the package says two sentences.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file

from petl_modules.data import read_clip
from petl_modules.tts.page import Spoken, write_page
from petl_modules.tts.synthesize import Synthesizer

OUT = Path(__file__).parent / "voices"
BASE = "kathleen"
OWN = (
    "There is that magnificent Bob, eating his head off in the stable.",
    "A small voice can be taught to sound like somebody else.",
)
INTRODUCTION = (
    "kathleen is the base that comes with the package. Below two sentences of its own "
    "stand speakers of English as a second language: the recording, and what the base "
    "and each method make of the same text after a few other sentences. All sounds are "
    "of the same vocoder, Griffin and Lim's, the recordings too."
)


def main(arguments: list[str]) -> None:
    """Write the page."""
    runs = dict(argument.split("=", 1) for argument in arguments)
    voice = Synthesizer(BASE)
    features, vocoder = voice.base.features, voice.vocoder
    spoken = []
    for text in OWN:
        mel = voice.spectrogram(text)
        spoken.append(Spoken(BASE, text, vocoder(mel), mel))
    for key, entry in sentences(Path(next(iter(runs.values())))):
        text = f"{entry['text'].capitalize()}. (speaker {entry['speaker']})"
        mels = {"recording": features.mel(read_clip(entry["wav"], voice.sample_rate))}
        for name, run in runs.items():
            mels[name] = load_file(Path(run) / "spectrograms.safetensors")[key].float()
        spoken += [Spoken(name, text, vocoder(mel), mel) for name, mel in mels.items()]
    for old in (*OUT.glob("voice*_text*.ogg"), *OUT.glob("voice*_text*.png")):
        old.unlink()
    seconds = features.hop_length / features.sample_rate
    write_page(OUT, spoken, voice.sample_rate, seconds, INTRODUCTION)


def sentences(run: Path) -> Iterator[tuple[str, dict]]:
    """The first test sentence of each speaker."""
    entries = json.loads((run / "data" / "test.json").read_text(encoding="utf-8"))
    seen = set()
    for key, entry in sorted(entries.items()):
        if entry["speaker"] not in seen:
            seen.add(entry["speaker"])
            yield key, entry


if __name__ == "__main__":
    main(sys.argv[1:])
