"""Entries of LibriSpeech (Panayotov et al., 2015): text, sentences or phones."""

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from petl_modules import data
from petl_modules.data.units import BLANK, with_units
from petl_modules.errors import UserError
from petl_modules.kinds import Names

logger = logging.getLogger("petl_modules.recipes.librispeech")

Spell = Callable[[list[str]], list[str]]

LEXICON = "librispeech-lexicon.txt"
LAYOUT = (
    "it must be the unpacked LibriSpeech with folders such as train-clean-100 and "
    "dev-clean (https://www.openslr.org/12)."
)


def prepare_text(
    data_folder: str,
    train_sets: Names,
    valid_set: str,
    test_set: str,
    tokens: str,
    vocab_size: int,
) -> tuple[data.Splits, list[str]]:
    """Entries whose units are characters or SentencePiece units.

    Arguments
    ---------
    data_folder : str
        With one folder per set.
    train_sets : list of str
    valid_set, test_set : str
    tokens, vocab_size
        As of `petl_modules.data.units.with_units`.

    Returns
    -------
    splits, labels
        For `petl_modules.data.make_manifests`.

    Raises
    ------
    UserError
        For a wrong folder or set.
    """
    splits = read_sets(data_folder, train_sets, valid_set, test_set)
    return with_units(splits, tokens, vocab_size)


def prepare_phonemes(
    data_folder: str,
    train_sets: Names,
    valid_set: str,
    test_set: str,
    lexicon: str | None = None,
    g2p: bool = False,
    stress: bool = False,
) -> tuple[data.Splits, list[str]]:
    """Entries whose units are phones: the first pronunciation of each word, without
    stress marks unless they are asked for.

    Utterances with a word that has no pronunciation are left out and counted.

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
    g2p : bool
        Look words that the lexicon lacks up in the g2p library.
    stress : bool
        Whether vowels of other stress are other phones (AA0, AA1, AA2).

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
    splits = read_sets(data_folder, train_sets, valid_set, test_set)
    folder = data.data_folder_of("LibriSpeech", data_folder, train_sets[0], LAYOUT)
    spell = list if stress else stressless
    pronunciations = read_lexicon(lexicon or folder / LEXICON, spell)
    if g2p:
        add_pronunciations(pronunciations, splits, spell)
    spoken = {name: {} for name in splits}
    for name, entries in splits.items():
        unknown = set()
        for key, entry in entries.items():
            words = entry["text"].split()
            missing = {word for word in words if word not in pronunciations}
            unknown |= missing
            if not missing:
                phones = (phone for word in words for phone in pronunciations[word])
                spoken[name][key] = {**entry, "units": " ".join(phones)}
        if unknown:
            logger.warning(
                "Left out of %s: %d of %d utterances, with %d words that have no "
                "pronunciation, such as %s.",
                name,
                len(entries) - len(spoken[name]),
                len(entries),
                len(unknown),
                min(unknown),
            )
    return spoken, [BLANK, *sorted({p for ps in pronunciations.values() for p in ps})]


def read_sets(
    data_folder: str, train_sets: Names, valid_set: str, test_set: str
) -> data.Splits:
    """Entries with their text, by split."""
    folder = data.data_folder_of("LibriSpeech", data_folder, train_sets[0], LAYOUT)
    parts = {"train": train_sets, "valid": [valid_set], "test": [test_set]}
    return {
        name: {
            key: {"wav": str(path), "text": " ".join(words)}
            for part in sets
            for key, path, words in utterances(folder / part)
        }
        for name, sets in parts.items()
    }


def prepare_sentences(
    data_folder: str, train_sets: Names, valid_set: str, test_set: str
) -> tuple[data.Splits, None]:
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
    splits = read_sets(data_folder, train_sets, valid_set, test_set)
    for entry in (entry for split in splits.values() for entry in split.values()):
        entry["text"] = sentence(entry["text"])
    return splits, None


def sentence(words: str) -> str:
    """Words in capitals as a sentence.

    Example
    -------
    >>> sentence("AND I'LL SAY WHAT I THINK")
    "And I'll say what I think."
    """
    text = re.sub(r"\bi\b", "I", words.lower())
    return f"{text[:1].upper()}{text[1:]}."


def read_lexicon(path: str | Path, spell: Spell) -> dict[str, list[str]]:
    """`{word: phones}` of the first pronunciation of each word, as `spell` has it."""
    pronunciations = {}
    for line in data.read_lines(path):
        word, *phones = line.split()
        if not phones:
            raise UserError(f"The word {word} has no phones in {path}.")
        pronunciations.setdefault(word.upper(), spell(phones))
    return pronunciations


def add_pronunciations(
    pronunciations: dict[str, list[str]], splits: data.Splits, spell: Spell
) -> None:
    """Give words of the splits that have no pronunciation that of the g2p library,
    where it knows one whose phones the lexicon has."""
    from g2p import make_g2p  # takes seconds to load

    phones_of = make_g2p("eng", "eng-arpabet")
    there = {phone for phones in pronunciations.values() for phone in phones}
    texts = [e["text"] for entries in splits.values() for e in entries.values()]
    words = {word for text in texts for word in text.split()} - set(pronunciations)
    found = {
        word: spell(phones_of(word.lower()).output_string.split())
        for word in sorted(words)
    }
    known = {word: ps for word, ps in found.items() if ps and there.issuperset(ps)}
    pronunciations |= known
    logger.info(
        "Of %d words that the lexicon lacks, the g2p library knows %d.",
        len(words),
        len(known),
    )


def stressless(phones: list[str]) -> list[str]:
    """Phones without stress marks."""
    return [re.sub(r"\d$", "", phone) for phone in phones]


def utterances(part: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """`(id, path, words)` of every utterance of a set, by chapter."""
    if not part.is_dir():
        raise UserError(f"The data folder has no {part.name}: {LAYOUT}")
    for listing in data.files_below(part):
        if not listing.name.endswith(".trans.txt"):
            continue
        for line in data.read_lines(listing):
            key, *words = line.split()
            path = data.inside(listing.parent, f"{key}.flac")
            yield data.clip_id(part.parent, path), path, words
