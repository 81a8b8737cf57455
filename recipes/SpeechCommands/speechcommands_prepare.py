"""Entries of Google Speech Commands (Warden, arXiv 1804.03209)."""

import re
from pathlib import Path

from petl_modules import data
from petl_modules.errors import UserError
from petl_modules.kinds import Names

LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
LAYOUT = (
    "it must be the unpacked Speech Commands with one folder of clips per word and "
    "the files validation_list.txt and testing_list.txt "
    "(http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz)."
)


def prepare_speechcommands(
    data_folder: str, words: Names | None = None
) -> tuple[data.Splits, list[str]]:
    """Entries of the official split: the two lists validate and test, the rest trains.

    Arguments
    ---------
    data_folder : str
        With one folder per word and both lists.
    words : list of str or None
        The words to tell apart; None for all that have a folder. Listed clips of
        other words are passed over.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the classes are the words, sorted.

    Raises
    ------
    UserError
        For a wrong folder, a word that has none, or a clip in both lists.
    """
    folder = data.data_folder_of("Speech Commands", data_folder, LISTS["test"], LAYOUT)
    # _background_noise_ is no word
    there = [p.name for p in data.folders_in(folder) if not p.name.startswith("_")]
    labels = there if words is None else sorted(map(spoken, words))
    if absent := sorted(set(labels) - set(there)):
        raise UserError(f"The data folder {folder} has no folder for {absent[0]}.")
    splits = {name: {} for name in data.SPLITS}
    for name, listing in LISTS.items():
        for clip in data.read_lines(folder / listing):
            if clip.split("/")[0] in labels:
                splits[name][clip] = entry(folder, clip)
    if both := splits["valid"].keys() & splits["test"].keys():
        raise UserError(
            f"{' and '.join(LISTS.values())} in {folder} both name {min(both)}: what "
            "is chosen by would be what is tested on."
        )
    held_out = splits["valid"].keys() | splits["test"].keys()
    for label in labels:
        for path in data.clips_in(folder / label):
            clip = data.clip_id(folder, path)
            if clip not in held_out:
                splits["train"][clip] = entry(folder, clip)
    return splits, labels


def entry(folder: Path, clip: str) -> dict[str, str]:
    """The entry of `word/speaker_nohash_number.wav`."""
    word, _, name = clip.partition("/")
    speaker = re.sub(r"_nohash_.*$", "", name)
    path = data.inside(folder, clip)
    return {"wav": str(path), "label": word, "speaker": speaker}


def spoken(word: str | bool) -> str:
    """A word as it was written: yaml takes some for truth values."""
    return {True: "on", False: "off"}.get(word, str(word))
