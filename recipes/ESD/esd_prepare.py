"""Entries of the Emotional Speech Dataset (Zhou et al., arXiv 2105.14762)."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from petl_modules import data
from petl_modules.data.units import normalized, with_units
from petl_modules.errors import UserError
from petl_modules.kinds import Names

logger = logging.getLogger("petl_modules.recipes.esd")

ENGLISH = tuple(f"{number:04d}" for number in range(11, 21))
FOLDERS = {"train": "train", "valid": "evaluation", "test": "test"}
VALID, TEST = 20, 30  # utterances of each speaker and emotion
TASKS = ("emotion", "speaker")
EMOTIONS = {"neutral", "angry", "happy", "sad", "surprise"}
LAYOUT = (
    "it must hold one folder per speaker (0001 to 0020) with one folder per emotion "
    "(https://hltsingapore.github.io/ESD/)."
)


def prepare_esd(
    data_folder: str, task: str = "emotion", speakers: Names | None = None
) -> tuple[data.Splits, list[str]]:
    """Entries of the official split of ESD: per speaker and emotion 300 utterances
    train, 20 validate, 30 test.

    Releases without the folders train, evaluation and test are split as the others
    are: the first 20 utterances of an emotion validate, the next 30 test.

    Arguments
    ---------
    data_folder : str
        With speaker/emotion/{train,evaluation,test}/*.wav or speaker/emotion/*.wav.
    task : str
        What is told apart: emotion or speaker.
    speakers : list of str or None
        None for the English ones, 0011 to 0020, that are there.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the classes are sorted.

    Raises
    ------
    UserError
        For a wrong folder, task or speaker.
    """
    if task not in TASKS:
        raise UserError(f"task={task} is none of {' and '.join(TASKS)}.")
    splits = {name: {} for name in data.SPLITS}
    for name, speaker, emotion, path in recordings(data_folder, speakers):
        label = {"emotion": emotion, "speaker": speaker}[task].name
        key = data.clip_id(speaker.parent, path)
        splits[name][key] = {"wav": str(path), "label": label}
    return splits, sorted({entry["label"] for entry in splits["train"].values()})


def prepare_text(
    data_folder: str, speakers: Names | None, tokens: str, vocab_size: int
) -> tuple[data.Splits, list[str]]:
    """Entries of the same split with what is said, as of
    `petl_modules.data.units.normalized`; utterances without a text are left out and
    counted.

    Arguments
    ---------
    data_folder : str
        As of `prepare_esd`, with speaker/speaker.txt: lines of utterance, text and
        emotion, parted by tabs or, in some releases, by blanks.
    speakers : list of str or None
        None for the English ones, 0011 to 0020, that are there.
    tokens, vocab_size
        As of `petl_modules.data.units.with_units`.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`.

    Raises
    ------
    UserError
        For a wrong folder or speaker, or a missing list of texts.
    """
    splits, texts, missing = {name: {} for name in data.SPLITS}, {}, []
    for name, speaker, _, path in recordings(data_folder, speakers):
        if speaker not in texts:
            texts[speaker] = read_texts(speaker / f"{speaker.name}.txt")
        if text := texts[speaker].get(path.stem):
            key = data.clip_id(speaker.parent, path)
            splits[name][key] = {"wav": str(path), "text": text}
        else:
            missing.append(path.stem)
    if missing:
        logger.warning(
            "Left out: %d utterances without a text, such as %s.",
            len(missing),
            missing[0],
        )
    return with_units(splits, tokens, vocab_size)


# Helpers


def recordings(
    data_folder: str, speakers: Names | None
) -> Iterator[tuple[str, Path, Path, Path]]:
    """`(split, speaker, emotion, path)` of every utterance of the speakers; the last
    three are paths."""
    folder = data.data_folder_of("ESD", data_folder, ".", LAYOUT)
    there = [path.name for path in data.folders_in(folder)]
    if speakers is None:
        chosen = [speaker for speaker in ENGLISH if speaker in there]
    else:  # yaml takes 0011 for a number
        chosen = sorted(str(speaker).zfill(4) for speaker in speakers)
    absent = sorted(set(chosen) - set(there))
    if absent or not chosen:
        who = f"the speaker {absent[0]}" if absent else "any English speaker"
        raise UserError(f"The data folder {folder} does not hold {who}: {LAYOUT}")
    for speaker in chosen:
        home = folder / speaker
        for emotion in data.folders_in(home):
            for name, paths in parts(emotion).items():
                for path in paths:
                    yield name, home, emotion, path


def read_texts(path: Path) -> dict[str, str]:
    """`{utterance: text}` of a speaker's list."""
    return dict(map(read_text, data.read_lines(path)))


def read_text(line: str) -> tuple[str, str]:
    """Utterance and text of a line; the emotion may be missing where tabs part them.

    Example
    -------
    >>> read_text("0011_000351\\tThe nine the eggs.\\tAngry")
    ('0011_000351', 'the nine the eggs')
    >>> read_text("0011_000351 The nine the eggs. Angry")
    ('0011_000351', 'the nine the eggs')
    """
    key, *rest = re.split(r"\s+", line, maxsplit=1)
    said, *emotion = "".join(rest).split("\t")
    words = said.split()
    if not emotion and "\t" not in line and words and words[-1].lower() in EMOTIONS:
        words.pop()
    return key, normalized(" ".join(words))


def parts(emotion: Path) -> dict[str, list[Path]]:
    """The clips of one speaker's emotion by split."""
    if any((emotion / name).is_dir() for name in FOLDERS.values()):
        return {
            name: data.clips_in(emotion / inner)
            for name, inner in FOLDERS.items()
            if (emotion / inner).is_dir()
        }
    paths = data.clips_in(emotion)
    held_out = VALID + TEST
    return {
        "train": paths[held_out:],
        "valid": paths[:VALID],
        "test": paths[VALID:held_out],
    }
