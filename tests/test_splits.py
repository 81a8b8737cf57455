"""Few-shot draws and splits are seeded, stratified, and part no group."""

import random

import pytest

from petl_modules.data.splits import few_shot, split_off
from petl_modules.errors import UserError


def entries_of(folder=None, labels="ab", count=6, **more):
    """`count` entries of every label, by id."""
    return {
        f"{label}{i:02}": {"wav": f"{folder}/{label}{i:02}.wav", "label": label, **more}
        for label in labels
        for i in range(count)
    }


def shuffled(entries, seed=1):
    items = list(entries.items())
    random.Random(seed).shuffle(items)
    return dict(items)


# few_shot


def test_few_shot_is_stratified_seeded_and_orderless():
    entries = entries_of(labels="abc", count=20)
    drawn = few_shot(entries, 5, seed=3)
    assert all(entries[key] == entry for key, entry in drawn.items())
    labels = [entry["label"] for entry in drawn.values()]
    assert {label: labels.count(label) for label in "abc"} == dict.fromkeys("abc", 5)
    again = few_shot(shuffled(entries), 5, seed=3)
    assert list(again.items()) == list(drawn.items())
    assert few_shot(entries, 5, seed=4) != drawn


def test_few_shot_of_a_class_is_its_own():
    both, one = entries_of(labels="ab", count=20), entries_of(labels="b", count=20)
    drawn = few_shot(both, 5, seed=0)
    assert {k for k in drawn if k[0] == "b"} == set(few_shot(one, 5, seed=0))


def test_few_shot_bounds():
    entries = entries_of(count=3)
    assert few_shot(entries, None, seed=0) == entries
    assert few_shot(entries, 3, seed=0) == entries
    entries.pop("b00")
    with pytest.raises(UserError, match="class b has 2 training clips"):
        few_shot(entries, 3, seed=0)
    for count in (0, -1):
        with pytest.raises(UserError, match="at least 1"):
            few_shot(entries, count, seed=0)


# split_off


def grouped(labels="ab", groups=6, clips=3):
    return {
        f"{label}{g}{i}": {"label": label, "group": f"{label}{g}"}
        for label in labels
        for g in range(groups)
        for i in range(clips)
    }


@pytest.mark.parametrize("seed", range(5))
def test_split_off_never_parts_a_group(seed):
    entries = grouped()
    rest, part = split_off(entries, 0.25, seed, "valid")
    assert {**rest, **part} == entries and not rest.keys() & part.keys()
    groups = [{entry["group"] for entry in side.values()} for side in (rest, part)]
    assert not groups[0] & groups[1]
    for side in (rest, part):
        assert {entry["label"] for entry in side.values()} == {"a", "b"}
    assert split_off(shuffled(entries), 0.25, seed, "valid") == (rest, part)


def test_a_group_across_classes_stays_together():
    entries = {
        f"{speaker}-{label}": {"label": label, "group": f"s{speaker}"}
        for speaker in range(8)
        for label in "abc"
    }
    rest, part = split_off(entries, 0.25, 0, "test")
    assert len(part) == 6
    assert not {k[0] for k in rest} & {k[0] for k in part}


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_split_off_takes_its_fraction_of_every_class(fraction):
    entries = entries_of(count=20)
    _, part = split_off(entries, fraction, 0, "valid")
    labels = [entry["label"] for entry in part.values()]
    assert labels.count("a") == labels.count("b") == round(20 * fraction)


def test_split_off_does_not_hang_on_the_order():
    entries = entries_of(count=20)
    expected = split_off(entries, 0.2, 0, "valid")
    for seed in range(3):
        assert split_off(shuffled(entries, seed), 0.2, 0, "valid") == expected


def test_split_off_depends_on_the_seed():
    parts = [split_off(entries_of(), 0.3, s, "v")[1] for s in range(6)]
    assert any(part != parts[0] for part in parts)


def test_split_off_refuses():
    for fraction in (0, 1, -0.2, 1.5):
        with pytest.raises(UserError, match="between 0 and 1"):
            split_off(entries_of(), fraction, 0, "valid")
    lonely = entries_of() | {"c": {"label": "c"}}
    with pytest.raises(UserError, match="class c has too few clips"):
        split_off(lonely, 0.2, 0, "valid")
    with pytest.raises(UserError, match="class a has too few"):
        split_off(grouped(groups=1), 0.2, 0, "valid")
    crossed = {
        "1": {"label": "a", "group": "x"},
        "2": {"label": "b", "group": "x"},
        "3": {"label": "a", "group": "y"},
        "4": {"label": "b", "group": "z"},
    }
    try:
        sides = split_off(crossed, 0.5, 0, "valid")
    except UserError as refusal:
        assert "every class on both sides" in str(refusal)
    else:
        assert all({e["label"] for e in side.values()} == {"a", "b"} for side in sides)
