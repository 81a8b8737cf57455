"""Which clips train and which are held out: few-shot draws and seeded splits."""

import random
import warnings
from collections import Counter, defaultdict
from fractions import Fraction

from sklearn.model_selection import StratifiedGroupKFold

from petl_modules.errors import UserError

FINEST = 20  # folds that a split is put together from


def few_shot(entries, count, seed):
    """`count` clips of every class, drawn with the seed; the order of files and
    folders has no say.

    Raises
    ------
    UserError
        If a class has fewer clips.
    """
    if count is None:
        return entries
    classes = defaultdict(list)
    for key in sorted(entries):
        if "label" not in entries[key]:
            raise UserError(f"few_shot={count} draws from classes; here are texts.")
        classes[entries[key]["label"]].append(key)
    short = [label for label, keys in classes.items() if len(keys) < count]
    if short or count < 1:
        raise UserError(
            f"few_shot={count} cannot be drawn: the class {short[0]} has "
            f"{len(classes[short[0]])} training clips."
            if short
            else f"few_shot={count} must be at least 1."
        )
    # one generator a class, so that a class's draw does not hang on the others
    drawn = [
        key
        for label, keys in sorted(classes.items())
        for key in random.Random(f"{seed} {label}").sample(keys, count)
    ]
    return {key: entries[key] for key in sorted(drawn)}


def split_off(entries, fraction, seed, name):
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


def need_two_groups(labels, groups, name):
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


def nearest(fraction, folds):
    """The fraction nearest to a given one that has at most so many folds and leaves
    neither side empty."""
    share = Fraction(fraction).limit_denominator(folds)
    least = Fraction(1, folds)
    return min(max(share, least), 1 - least)


def grouped_folds(labels, groups, count, seed):
    """The clips' positions in `count` folds, stratified, no group in two of them."""
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # a class may have fewer clips than folds: the caller looks at both sides
        warnings.simplefilter("ignore", UserWarning)
        return [part.tolist() for _, part in splitter.split(labels, labels, groups)]
