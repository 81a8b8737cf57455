"""Entries of LibriSpeech (Panayotov et al., 2015), as sentences or as phones."""

import logging
import re

from petl_modules import data
from petl_modules.errors import UserError
from petl_modules.tasks.ctc import BLANK

logger = logging.getLogger("petl_modules.recipes.librispeech")

LEXICON = "librispeech-lexicon.txt"
LAYOUT = (
    "it must be the unpacked LibriSpeech with folders such as train-clean-100 and "
    "dev-clean (https://www.openslr.org/12)."
)


def prepare_phonemes(data_folder, train_sets, valid_set, test_set, lexicon=None):
    """Entries whose text is phones: the first pronunciation of each word, without
    stress marks.

    Utterances with a word that the lexicon lacks are left out and counted.

    Arguments
    ---------
    data_folder : str
        With one folder per set.
    train_sets : list of str
    valid_set, test_set : str
    lexicon : str or None
        Lines of a word and its phones, parted by white space
        (https://www.openslr.org/11); None for librispeech-lexicon.txt in the data
        folder.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`; the labels are the blank and the
        phones, sorted.

    Raises
    ------
    UserError
        For a wrong folder, set or lexicon.
    """
    folder = data.data_folder_of("LibriSpeech", data_folder, train_sets[0], LAYOUT)
    pronunciations = read_lexicon(lexicon or folder / LEXICON)
    splits = {name: {} for name in data.SPLITS}
    parts = {"train": train_sets, "valid": [valid_set], "test": [test_set]}
    for name, sets in parts.items():
        unknown, count = set(), 0
        for key, path, words in (u for s in sets for u in utterances(folder / s)):
            count += 1
            if missing := [word for word in words if word not in pronunciations]:
                unknown.update(missing)
                continue
            phones = [phone for word in words for phone in pronunciations[word]]
            splits[name][key] = {"wav": str(path), "text": " ".join(phones)}
        if unknown:
            logger.warning(
                "Left out of %s: %d of %d utterances, with %d words that are not in "
                "the lexicon, such as %s.",
                " ".join(sets),
                count - len(splits[name]),
                count,
                len(unknown),
                min(unknown),
            )
    found = {p for e in splits["train"].values() for p in e["text"].split()}
    known = {p for phones in pronunciations.values() for p in phones}
    return splits, [BLANK, *sorted(known | found)]


def prepare_sentences(data_folder, train_sets, valid_set, test_set):
    """Entries whose text is written as people and Whisper write: in small letters, with
    a capital at the start and a full stop at the end.

    Arguments
    ---------
    data_folder : str
        With one folder per set.
    train_sets : list of str
    valid_set, test_set : str

    Returns
    -------
    splits, None
        For `petl_modules.data.make_manifests`.

    Raises
    ------
    UserError
        For a wrong folder or set.
    """
    folder = data.data_folder_of("LibriSpeech", data_folder, train_sets[0], LAYOUT)
    parts = {"train": train_sets, "valid": [valid_set], "test": [test_set]}
    splits = {
        name: {
            key: {"wav": str(path), "text": sentence(words)}
            for part in sets
            for key, path, words in utterances(folder / part)
        }
        for name, sets in parts.items()
    }
    return splits, None


def sentence(words):
    """Words in capitals as a sentence.

    Example
    -------
    >>> sentence(["AND", "I'LL", "SAY", "WHAT", "I", "THINK"])
    "And I'll say what I think."
    """
    text = re.sub(r"\bi\b", "I", " ".join(words).lower())
    return f"{text[:1].upper()}{text[1:]}."


def read_lexicon(path):
    """`{word: phones}` of the first pronunciation of each word."""
    pronunciations = {}
    for line in data.read_lines(path):
        word, *phones = line.split()
        if not phones:
            raise UserError(f"The word {word} has no phones in {path}.")
        stressless = [re.sub(r"\d$", "", phone) for phone in phones]
        pronunciations.setdefault(word.upper(), stressless)
    return pronunciations


def utterances(part):
    """`(id, path, words)` of every utterance of a set, by id."""
    if not part.is_dir():
        raise UserError(f"The data folder has no {part.name}: {LAYOUT}")
    for listing in sorted(part.glob("*/*/*.trans.txt")):
        for line in data.read_lines(listing):
            key, *words = line.split()
            yield key, data.inside(listing.parent, f"{key}.flac"), words
