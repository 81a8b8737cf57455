"""Which clips train and which are held out: few-shot draws and seeded splits."""

import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
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
        `{id: {label or labels (optional), group (optional), ...}}`; clips of one group
        stay together.
    fraction : float
        About how much goes to the second part.
    seed : int
    name : str
        What the second part is for, for messages.

    Returns
    -------
    rest, part : dict
        Both with every class; of several labels a clip the first has all, and the
        second as many as can be.

    Raises
    ------
    UserError
        For a fraction that is none, or where there is no such split.
    """
    if not 0 < fraction < 1:
        raise UserError(
            f"The fraction for {name}, {fraction}, must be between 0 and 1."
        )
    clips = Labelled.of(entries)
    if clips.single:
        need_two_groups(clips.strata, clips.groups, name)
    free = clips.parted()
    # the coarser the folds, the easier it is to have every class in each
    largest = max(Counter(clips.strata[i] for i in free).values(), default=0)
    finest = min(FINEST, len({clips.groups[i] for i in free}), largest)
    for share in dict.fromkeys(
        nearest(fraction, folds) for folds in range(finest, 1, -1)
    ):
        folds = clips.folds(free, share.denominator, seed)
        found = []
        for start in range(len(folds)):
            turned = folds[start:] + folds[:start]
            part = {i for fold in turned[: share.numerator] for i in fold}
            rest = set(range(len(clips.keys))) - part
            missing = len(clips.labels_in(rest)) - len(clips.labels_in(part))
            if clips.labels_in(rest) == clips.labels_in(range(len(clips.keys))):
                found.append((missing, start, rest, part))
            if not missing and found:
                break
        if found and not (clips.single and min(found)[0]):
            _, _, rest, part = min(found)
            return clips.entries(entries, rest), clips.entries(entries, part)
    raise UserError(
        f"No split leaves every class on both sides of {name}: there are too few "
        "clips or groups; give more, or a larger fraction."
    )


def folds_of(entries: Entries, count: int, fold: int, seed: int) -> dict[str, Entries]:
    """The splits of one fold: it tests, the one before it validates, the others train.

    Arguments
    ---------
    entries : dict
        As of `split_off`.
    count : int
        Of folds.
    fold : int
        From 1 on.
    seed : int

    Raises
    ------
    UserError
        Where there are fewer groups than folds, or training lacks a class.
    """
    clips = Labelled.of(entries)
    if len(set(clips.groups)) < count:
        raise UserError(
            f"There are {len(set(clips.groups))} clips or groups, fewer than {count} "
            "folds."
        )
    every = range(len(clips.keys))
    folds = clips.folds(list(every), count, seed)
    test, valid = set(folds[fold - 1]), set(folds[fold - 2])
    train = set(every) - test - valid
    if lost := clips.labels_in(every) - clips.labels_in(train):
        raise UserError(
            f"The class {min(lost)} is in too few clips or groups for {count} folds: "
            f"fold {fold} would not train on it."
        )
    parts = {"train": train, "valid": valid, "test": test}
    return {name: clips.entries(entries, part) for name, part in parts.items()}


# Helpers


@dataclass(frozen=True)
class Labelled:
    """What a split looks at: the clips in order of their ids.

    Attributes
    ----------
    keys : list of str
    labels : list of set of str
        Of each clip: its class, its labels, or none.
    strata : list of str
        The rarest of them.
    groups : list of str
    single : bool
        Whether a clip has one class.
    """

    keys: list[str]
    labels: list[set[str]]
    strata: list[str]
    groups: list[str]
    single: bool

    @classmethod
    def of(cls, entries: Entries) -> "Labelled":
        """The clips of entries."""
        keys = sorted(entries)
        labels = [labels_of(entries[key]) for key in keys]
        count = Counter(label for own in labels for label in own)
        strata = [min(own, key=lambda x: (count[x], x), default="") for own in labels]
        groups = [str(entries[key].get("group", key)) for key in keys]
        return cls(keys, labels, strata, groups, "label" in entries[keys[0]])

    def labels_in(self, places: Collection[int]) -> set[str]:
        """The labels that some of the clips have."""
        return set().union(*(self.labels[i] for i in places))

    def parted(self) -> list[int]:
        """Places of the clips that may go to either side: not the only group with a
        label."""
        owners = defaultdict(set)
        for own, group in zip(self.labels, self.groups, strict=True):
            for label in own:
                owners[label].add(group)
        pinned = {min(groups) for groups in owners.values() if len(groups) == 1}
        return [i for i, group in enumerate(self.groups) if group not in pinned]

    def folds(self, places: list[int], count: int, seed: int) -> list[list[int]]:
        """Some of the clips in folds, stratified, no group in two of them."""
        strata, groups = (
            [own[i] for i in places] for own in (self.strata, self.groups)
        )
        parts = grouped_folds(strata, groups, count, seed)
        return [[places[i] for i in part] for part in parts]

    def entries(self, entries: Entries, places: Collection[int]) -> Entries:
        """The entries of some of the clips."""
        return {self.keys[i]: entries[self.keys[i]] for i in sorted(places)}


def labels_of(entry: Mapping[str, Any]) -> set[str]:
    """An entry's class or speaker, or its labels; none of one that has only a text."""
    for key in ("label", "speaker"):
        if key in entry:
            return {entry[key]}
    return set(entry.get("labels", ()))


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
