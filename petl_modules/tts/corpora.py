"""What the recipes of speech synthesis share in reading data sets."""

import random
import re
from collections.abc import Iterable, Mapping
from itertools import zip_longest

from petl_modules.data import SPLITS
from petl_modules.errors import UserError


def chosen_speakers(
    found: Iterable[str],
    speakers: str | list[str] | None = None,
    without: str | Iterable[str] = (),
) -> list[str]:
    """The speakers that a run is about, sorted.

    Arguments
    ---------
    found : iterable of str
        Those in the data.
    speakers : list of str or None
        None for all.
    without : list of str
        Those whom it must not hear.

    Raises
    ------
    UserError
        For one who is not there, or if nobody is left.
    """
    found = sorted(found)
    # a number on the command line or in a yaml is a name too
    asked = None if speakers is None else [str(name) for name in listed(speakers)]
    left_out = [str(name) for name in listed(without)]
    for name in (asked or []) + left_out:
        if name not in found:
            raise UserError(
                f"There is no speaker {name} in the data, but {', '.join(found)}."
            )
    chosen = [name for name in asked or found if name not in left_out]
    if not chosen:
        raise UserError("No speaker is left: look at speakers and without.")
    return sorted(chosen)


def hold_out(
    entries: Mapping[str, dict], valid: int, test: int, seed: int
) -> dict[str, dict]:
    """Draw the sentences that validate and test; the others train.

    Arguments
    ---------
    entries : dict
        `{id: {wav, text, speaker, prompt (optional)}}`; what several speakers read from
        one prompt is one sentence. Where there are no prompts, speakers take turns, so
        that all are judged if there are sentences enough.
    valid, test : int
        How many sentences, of all speakers together.
    seed : int

    Returns
    -------
    dict
        The entries by split.

    Raises
    ------
    UserError
        If a speaker has none left to train on.
    """
    prompts = {key: entry.get("prompt", key) for key, entry in entries.items()}
    sentences = sorted(set(prompts.values()))
    if min(valid, test) < 1 or valid + test >= len(sentences):
        raise UserError(
            f"valid_sentences={valid} and test_sentences={test} must be 1 or more, and "
            f"leave some of {len(sentences)} sentences to train on."
        )
    drawn = in_turn(entries, prompts, sentences, valid + test, random.Random(seed))
    parts = dict.fromkeys(drawn[:valid], "valid") | dict.fromkeys(drawn[valid:], "test")
    splits = {name: {} for name in SPLITS}
    for key, entry in sorted(entries.items()):
        splits[parts.get(prompts[key], "train")][key] = entry
    trained = {entry["speaker"] for entry in splits["train"].values()}
    for name in sorted({entry["speaker"] for entry in entries.values()} - trained):
        raise UserError(f"The speaker {name} has no sentences left to train on.")
    return splits


def in_turn(
    entries: Mapping[str, dict],
    prompts: Mapping[str, str],
    sentences: list[str],
    count: int,
    random_state: random.Random,
) -> list[str]:
    """So many sentences: one of each speaker, then a second of each, and so on; where
    speakers share prompts, as they come."""
    own: dict[str, list[str]] = {}
    for key, entry in sorted(entries.items()):
        if "prompt" not in entry:
            own.setdefault(entry["speaker"], []).append(prompts[key])
    if len(own) < 2:
        return random_state.sample(sentences, count)
    orders = [random_state.sample(own[name], len(own[name])) for name in sorted(own)]
    return [s for turn in zip_longest(*orders) for s in turn if s is not None][:count]


def listed(names: str | Iterable[str]) -> list[str]:
    """One name or several as a list."""
    return list(names) if isinstance(names, list | tuple) else [names]


def words_of(text: str) -> str:
    """What makes two texts the same sentence: their words."""
    return " ".join(re.findall(r"\w+", text.lower()))
