"""Which clips train and which are held out: few-shot draws and seeded splits."""

import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from typing import Any

from petl_modules.errors import UserError

Entries = dict[str, dict[str, Any]]

FINEST = 20  # folds that a split is put together from


def few_shot(
    entries: Entries,
    count: int | None,
    seed: int,
    whole: Callable[[Entries], Entries] = dict,
    draw: str = "random",
) -> Entries:
    """`count` clips of every class, drawn with the seed; the order of files and
    folders has no say.

    Arguments
    ---------
    entries : dict
        `{id: {label, ...}}`.
    count : int or None
        None for all.
    seed : int
    whole : callable
        Gives back those of some entries whose clips can be read. It is asked only of
        what is drawn; what it leaves out is drawn again from the rest of its class, in
        an order that hangs on the seed too.

    draw : str
        random, or first: those whose names come first.

    Returns
    -------
    dict
        What `whole` gave of them.

    Raises
    ------
    UserError
        If a class has fewer clips, or there are none.
    """
    if count is None:
        return whole(entries)
    if count < 1:
        raise UserError(f"few_shot={count} must be at least 1.")
    classes = by_label(entries, count)
    refuse_short(classes, count)
    waiting = {
        label: sorted(keys)
        if draw == "first"
        else in_random_order(keys, count, f"{seed} {label}")
        for label, keys in sorted(classes.items())
    }
    drawn = {label: {} for label in waiting}
    while batch := {
        key: label
        for label, keys in waiting.items()
        for key in keys[: count - len(drawn[label])]
    }:
        found = whole({key: entries[key] for key in batch})
        for key, label in batch.items():
            waiting[label].remove(key)
            if key in found:
                drawn[label][key] = found[key]
    refuse_short(drawn, count)
    return dict(sorted(item for own in drawn.values() for item in own.items()))


def split_off(
    entries: Entries, fraction: float, seed: int, name: str
) -> tuple[Entries, Entries]:
    """Split entries in two, stratified by label, without parting a group.

    Arguments
    ---------
    entries : dict
        `{id: {label, group (optional), ...}}`; clips of one group stay together.
    fraction : float
        About how much goes to the second part.
    seed : int
    name : str
        What the second part is for, for messages.

    Returns
    -------
    rest, part : dict
        Both with every class.

    Raises
    ------
    UserError
        For a fraction that is none, or where no split leaves every class on both sides.
    """
    if not 0 < fraction < 1:
        raise UserError(
            f"The fraction for {name}, {fraction}, must be between 0 and 1."
        )
    keys = sorted(entries)
    labels = [entries[key]["label"] for key in keys]
    groups = [str(entries[key].get("group", key)) for key in keys]
    need_two_groups(labels, groups, name)
    classes = set(labels)
    # the coarser the folds, the easier it is to have every class in each
    finest = min(FINEST, len(set(groups)), max(Counter(labels).values()))
    for share in dict.fromkeys(
        nearest(fraction, folds) for folds in range(finest, 1, -1)
    ):
        folds = grouped_folds(labels, groups, share.denominator, seed)
        for start in range(len(folds)):
            turned = folds[start:] + folds[:start]
            part = {i for fold in turned[: share.numerator] for i in fold}
            rest = set(range(len(keys))) - part
            if all({labels[i] for i in side} == classes for side in (rest, part)):
                return tuple(
                    {keys[i]: entries[keys[i]] for i in sorted(side)}
                    for side in (rest, part)
                )
    raise UserError(
        f"No split leaves every class on both sides of {name}: there are too few "
        "clips or groups; give more, or a larger fraction."
    )


# Helpers


def by_label(entries: Entries, count: int) -> dict[str, list[str]]:
    """The ids of each class, sorted; a UserError where there are no classes."""
    classes = defaultdict(list)
    for key in sorted(entries):
        if "label" not in entries[key]:
            raise UserError(f"few_shot={count} draws from classes; here are texts.")
        classes[entries[key]["label"]].append(key)
    return classes


def refuse_short(classes: Mapping[str, Collection[str]], count: int) -> None:
    """Raise a UserError for a class that has fewer clips than are to be drawn."""
    for label, keys in classes.items():
        if len(keys) < count:
            raise UserError(
                f"few_shot={count} cannot be drawn: the class {label} has {len(keys)} "
                "training clips."
            )


def in_random_order(keys: list[str], count: int, seed: str) -> list[str]:
    """Some keys, drawn one class at a time so that no class hangs on the others: first
    `count` of them, then what takes their place."""
    generator = random.Random(seed)
    first = generator.sample(keys, min(count, len(keys)))
    rest = sorted(set(keys) - set(first))
    generator.shuffle(rest)
    return first + rest


def need_two_groups(labels: list[str], groups: list[str], name: str) -> None:
    """Raise a UserError where a class has too few groups to be split."""
    count = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        count[label].add(group)
    for label, own in sorted(count.items()):
        if len(own) < 2:
            raise UserError(
                f"The class {label} has too few clips (or groups of clips) to split "
                f"off {name}: it has {len(own)}, and needs one on each side."
            )


def nearest(fraction: float, folds: int) -> Fraction:
    """The fraction nearest to a given one that has at most so many folds and leaves
    neither side empty."""
    share = Fraction(fraction).limit_denominator(folds)
    least = Fraction(1, folds)
    return min(max(share, least), 1 - least)


def grouped_folds(
    labels: list[str], groups: list[str], count: int, seed: int
) -> list[list[int]]:
    """The clips' positions in `count` folds, stratified, no group in two of them."""
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second

    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # a class may have fewer clips than folds: the caller looks at both sides
        warnings.simplefilter("ignore", UserWarning)
        return [part.tolist() for _, part in splitter.split(labels, labels, groups)]
