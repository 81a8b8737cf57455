"""Tables of known data sets, to try the recipe on.

`python example_tables.py NAME FOLDER TABLE`, where NAME is ESC50, LibriSpeech or ESD,
FOLDER has that layout, and TABLE is written.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from petl_modules.data import is_audio, read_lines

# ESC-50's own five groups, of those of its classes that are ESC-10
GROUPS = {
    "dog": "animal",
    "rooster": "animal",
    "rain": "nature",
    "sea_waves": "nature",
    "crackling_fire": "nature",
    "crying_baby": "human",
    "sneezing": "human",
    "clock_tick": "indoors",
    "chainsaw": "outdoors",
    "helicopter": "outdoors",
}
FOLDS = {"4": "valid", "5": "test"}  # the others train
SETS = {"train-clean-100": "train", "dev-clean": "valid", "test-other": "test"}


def esc50(folder: Path) -> Iterator[dict]:
    """Two labels a clip, its class and the group of that; groups are the recordings
    that clips are cut from."""
    with open(folder / "meta" / "esc50.csv", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["category"] in GROUPS:
                yield {
                    "path": folder / "audio" / row["filename"],
                    "labels": f"{row['category']},{GROUPS[row['category']]}",
                    "group": row["src_file"],
                    "split": FOLDS.get(row["fold"], "train"),
                }


def librispeech(folder: Path) -> Iterator[dict]:
    """Texts."""
    for name, split in SETS.items():
        for transcript in sorted((folder / name).glob("**/*.trans.txt")):
            for line in read_lines(transcript):
                key, _, text = line.partition(" ")
                path = transcript.parent / f"{key}.flac"
                yield {"path": path, "text": f"{text.capitalize()}.", "split": split}


def esd(folder: Path) -> Iterator[dict]:
    """The emotion, the actor, and which sentence in which emotion it is."""
    for path in sorted(folder.glob("*/*/*/*")):
        if is_audio(path):
            actor, emotion = path.relative_to(folder).parts[:2]
            texts = dict(
                line.split("\t")[:2]
                for line in read_lines(folder / actor / f"{actor}.txt")
            )
            take = f"{texts[path.stem].split()[0]} {emotion}"
            yield {"path": path, "emotion": emotion, "actor": actor, "take": take}


if __name__ == "__main__":
    name, folder, table = sys.argv[1:]
    rows = list(
        {"ESC50": esc50, "LibriSpeech": librispeech, "ESD": esd}[name](Path(folder))
    )
    with open(table, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
