"""Official layouts become manifests: ESC-50's folds, and one's own class folders."""

import importlib.util
import json
import random

import pytest
from conftest import ROOT, tone

from petl_modules.data import make_manifests
from petl_modules.errors import UserError

HEADER = "filename,fold,target,category,esc10,src_file,take"
CLASSES = {0: "dog", 1: "rooster", 7: "can_opening"}


def prepare_function(recipe, name=None):
    name = name or f"prepare_{recipe.lower()}"
    path = ROOT / "recipes" / recipe / f"{recipe.lower()}_prepare.py"
    spec = importlib.util.spec_from_file_location(f"{name}_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def prepare_esc50(folder, save, fold, **kwargs):
    return make_manifests(save, *prepare_function("ESC50")(folder, fold), **kwargs)


def rows_of(prepared):
    return [
        json.loads(getattr(prepared, name).read_text(encoding="utf-8"))
        for name in ("train", "valid", "test")
    ]


def text_of(prepared):
    return [getattr(prepared, name).read_bytes() for name in ("train", "valid", "test")]


def labels_of(rows):
    return sorted({row["label"] for row in rows.values()})


# ESC-50


@pytest.fixture
def esc50(tmp_path):
    """Three classes, two clips of each in every fold; gives the folder."""
    rows = []
    for fold in range(1, 6):
        for target, label in CLASSES.items():
            for take in "AB":
                name = f"{fold}-{target}-{take}-{target}.wav"
                path = tmp_path / "ESC" / "audio" / name
                tone(path, 200 + 100 * target, 0.05, seed=fold)
                rows.append(f"{name},{fold},{target},{label},False,1,{take}")
    (tmp_path / "ESC" / "meta").mkdir()
    write_csv(tmp_path / "ESC", rows)
    return tmp_path / "ESC"


def csv_rows(folder):
    return (folder / "meta" / "esc50.csv").read_text().splitlines()[1:]


def write_csv(folder, rows, header=HEADER, ends="\n", encoding="utf-8"):
    text = ends.join([header, *rows]) + ends
    (folder / "meta" / "esc50.csv").write_bytes(text.encode(encoding))


@pytest.mark.parametrize("fold", [1, 2, 3, 4, 5])
def test_the_fold_tests_and_the_one_before_validates(esc50, tmp_path, fold):
    found = prepare_esc50(esc50, tmp_path / "save", fold)
    train, valid, test = rows_of(found)
    before = 5 if fold == 1 else fold - 1
    assert {int(key[0]) for key in test} == {fold}
    assert {int(key[0]) for key in valid} == {before}
    assert {int(key[0]) for key in train} == {1, 2, 3, 4, 5} - {fold, before}
    assert (len(train), len(valid), len(test)) == (18, 6, 6)


def test_classes_are_in_the_order_of_their_targets(esc50, tmp_path):
    found = prepare_esc50(esc50, tmp_path / "save", 1)
    assert found.labels == ["dog", "rooster", "can_opening"]
    for row in rows_of(found)[0].values():
        assert CLASSES[int(row["wav"].split("-")[-1][:-4])] == row["label"]


def test_the_order_of_targets_is_not_that_of_names(esc50, tmp_path):
    write_csv(esc50, [row.replace(",7,can", ",0,can") for row in csv_rows(esc50)])
    write_csv(esc50, [row.replace(",0,dog", ",9,dog") for row in csv_rows(esc50)])
    labels = prepare_esc50(esc50, tmp_path / "save", 1).labels
    assert labels == ["can_opening", "rooster", "dog"]


def test_a_csv_in_any_order_and_line_end_gives_the_same_manifests(esc50, tmp_path):
    expected = prepare_esc50(esc50, tmp_path / "plain", 2, shots=3, seed=5)
    rows = csv_rows(esc50)
    random.Random(0).shuffle(rows)
    write_csv(esc50, rows, ends="\r\n", encoding="utf-8-sig")
    found = prepare_esc50(esc50, tmp_path / "windows", 2, shots=3, seed=5)
    assert text_of(found) == text_of(expected)
    assert found.labels == expected.labels


def test_few_shot_only_thins_training(esc50, tmp_path):
    train, valid, test = rows_of(prepare_esc50(esc50, tmp_path / "s", 1, shots=1))
    assert (len(train), len(valid), len(test)) == (3, 6, 6)
    assert labels_of(train) == labels_of(test)


def test_a_subset_of_the_classes_is_enough(esc50, tmp_path):
    write_csv(esc50, [row for row in csv_rows(esc50) if ",rooster," not in row])
    found = prepare_esc50(esc50, tmp_path / "save", 1)
    assert found.labels == ["dog", "can_opening"]
    write_csv(esc50, [row for row in csv_rows(esc50) if ",dog," in row])
    with pytest.raises(UserError, match="two classes or more"):
        prepare_esc50(esc50, tmp_path / "save", 1)


def test_a_listed_clip_that_is_missing(esc50, tmp_path, caplog):
    (esc50 / "audio" / "4-0-A-0.wav").unlink()
    with pytest.raises(UserError, match=r"4-0-A-0\.wav is missing"):
        prepare_esc50(esc50, tmp_path / "save", 1)
    found = prepare_esc50(esc50, tmp_path / "save", 1, skip_broken=True)
    assert found.broken == 1 and "4-0-A-0.wav" in caplog.text
    assert sum(map(len, rows_of(found))) == 29


@pytest.mark.parametrize("name", ["../meta/esc50.csv", "/etc/hostname"])
def test_a_csv_that_leads_out_of_the_folder(esc50, tmp_path, name):
    write_csv(esc50, [*csv_rows(esc50), f"{name},1,0,dog,False,1,A"])
    with pytest.raises(UserError, match="outside its folder"):
        prepare_esc50(esc50, tmp_path / "save", 1)


def test_a_wrong_csv(esc50, tmp_path):
    rows = csv_rows(esc50)
    write_csv(esc50, rows, header="filename,part,target,class,esc10,src_file,take")
    with pytest.raises(UserError, match="lacks the columns category, fold"):
        prepare_esc50(esc50, tmp_path / "save", 1)
    write_csv(esc50, [])
    with pytest.raises(UserError, match="lists no clips"):
        prepare_esc50(esc50, tmp_path / "save", 1)
    for row, words in (
        ("x.wav,one,0,dog,False,1,A", "has the fold one"),
        ("x.wav,6,0,dog,False,1,A", "has the fold 6"),
        ("x.wav,,0,dog,False,1,A", "has no fold"),
        ("1-0-A-0.wav,2,0,dog,False,1,A", "repeats 1-0-A-0"),
    ):
        write_csv(esc50, [*rows, row])
        with pytest.raises(UserError, match=f"line 32 {words}"):
            prepare_esc50(esc50, tmp_path / "save", 1)


def test_a_wrong_folder_is_told_the_layout(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, words in (
        (None, "Pass --data_folder"),
        (tmp_path / "gone", "gone does not exist"),
        (tmp_path / "empty", "empty has no meta/esc50.csv"),
    ):
        with pytest.raises(UserError, match=words) as refusal:
            prepare_esc50(folder, tmp_path / "save", 1)
        assert "https://github.com/karolpiczak/ESC-50" in str(refusal.value)


@pytest.mark.parametrize("fold", [0, 6, None])
def test_a_fold_that_is_none(esc50, tmp_path, fold):
    with pytest.raises(UserError, match="folds 1 to 5"):
        prepare_esc50(esc50, tmp_path / "save", fold)


# AudioFolder


def clips(folder, labels="ab", names=range(10), suffix=".wav"):
    for label in labels:
        for name in names:
            tone(folder / label / f"{name}{suffix}", 300, 0.05)


def prepare(folder, tmp_path, **kwargs):
    found = prepare_function("AudioFolder")(folder, tmp_path / "out", **kwargs)
    return make_manifests(tmp_path / "save", *found)


def test_class_folders_are_split_by_class(tmp_path):
    clips(tmp_path / "d", labels="ba")
    found = prepare(tmp_path / "d", tmp_path)
    train, valid, test = rows_of(found)
    assert found.labels == ["a", "b"]
    assert (len(train), len(valid), len(test)) == (12, 4, 4)
    keys = [set(part) for part in (train, valid, test)]
    assert len(set.union(*keys)) == 20
    for part in (valid, test):
        assert sorted(row["label"] for row in part.values()) == ["a", "a", "b", "b"]
    assert rows_of(prepare(tmp_path / "d", tmp_path)) == [train, valid, test]
    assert any(
        rows_of(prepare(tmp_path / "d", tmp_path, seed=seed))[2] != test
        for seed in (1, 2)
    )


def test_given_splits_are_kept(tmp_path):
    for i, name in enumerate(("train", "valid", "test")):
        clips(tmp_path / "d" / name, names=range(i + 1))
    parts = rows_of(prepare(tmp_path / "d", tmp_path))
    assert [len(part) for part in parts] == [2, 4, 6]
    for name, part in zip(("train", "valid", "test"), parts, strict=True):
        assert all(f"/{name}/" in row["wav"] for row in part.values())


def test_a_missing_valid_comes_out_of_train(tmp_path):
    clips(tmp_path / "d" / "train")
    clips(tmp_path / "d" / "test", names=range(3))
    train, valid, test = rows_of(prepare(tmp_path / "d", tmp_path, valid_fraction=0.3))
    assert (len(train), len(test)) == (20 - len(valid), 6)
    assert 4 <= len(valid) <= 8 and labels_of(valid) == ["a", "b"]
    assert all("/train/" in row["wav"] for row in valid.values())


def test_clips_of_a_group_stay_on_one_side(tmp_path):
    names = [f"spk{s}/take{i}" for s in range(6) for i in range(2)]
    clips(tmp_path / "d", names=names)
    parts = rows_of(prepare(tmp_path / "d", tmp_path, group_regex=r"(spk\d)"))
    speakers = [{key.split("/")[1] for key in part} for part in parts]
    assert all(speakers) and sum(map(len, speakers)) == 6


@pytest.mark.parametrize(
    ("regex", "words"),
    [
        ("(spk", "no regular expression"),
        ("spk", "no group in parentheses"),
        (r"(speaker\d)", "does not match the clip 0.wav"),
    ],
)
def test_a_regex_that_gives_no_groups(tmp_path, regex, words):
    clips(tmp_path / "d")
    with pytest.raises(UserError, match=words):
        prepare(tmp_path / "d", tmp_path, group_regex=regex)


def test_a_regex_whose_group_takes_no_part(tmp_path):
    clips(tmp_path / "d")
    with pytest.raises(UserError, match="group_regex"):
        prepare(tmp_path / "d", tmp_path, group_regex=r"(spk\d)?")


def test_other_files_are_ignored_and_extensions_have_no_case(tmp_path, caplog):
    caplog.set_level("INFO")
    clips(tmp_path / "d", names=range(5))
    clips(tmp_path / "d", names=range(5, 8), suffix=".WAV")
    clips(tmp_path / "d", names=range(8, 10), suffix=".Flac")
    (tmp_path / "d" / "a" / "notes.txt").write_text("no sound")
    (tmp_path / "d" / "a" / ".hidden.wav").write_text("no sound")
    (tmp_path / "d" / "README.md").write_text("no sound")
    (tmp_path / "d" / "pictures").mkdir()
    (tmp_path / "d" / "pictures" / "a.png").write_text("no sound")
    found = prepare(tmp_path / "d", tmp_path)
    assert sum(map(len, rows_of(found))) == 20 and found.labels == ["a", "b"]
    assert "2 files" in caplog.text and "ignored" in caplog.text


def test_a_class_may_be_called_train(tmp_path):
    clips(tmp_path / "d", labels=["plane", "train"])
    found = prepare(tmp_path / "d", tmp_path)
    assert found.labels == ["plane", "train"]
    assert sum(map(len, rows_of(found))) == 20


def test_a_class_called_train_may_have_folders_too(tmp_path):
    clips(tmp_path / "d", labels=["plane", "train"])
    clips(tmp_path / "d" / "train", labels=["steam", "diesel"], names=range(2))
    found = prepare(tmp_path / "d", tmp_path)
    assert found.labels == ["plane", "train"]
    assert sum(map(len, rows_of(found))) == 24


def test_fractions_that_leave_nothing_to_train_on(tmp_path):
    clips(tmp_path / "d")
    for fractions in ({"valid_fraction": 0.8}, {"test_fraction": 0}):
        with pytest.raises(UserError, match="leave clips to train on"):
            prepare(tmp_path / "d", tmp_path, **fractions)


def test_one_class_or_none_is_refused(tmp_path):
    clips(tmp_path / "d", labels="a")
    with pytest.raises(UserError, match=r"1 classes.*two or more"):
        prepare(tmp_path / "d", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"0 classes.*two or more"):
        prepare(tmp_path / "empty", tmp_path)


def test_too_few_clips_of_a_class_are_refused(tmp_path):
    clips(tmp_path / "d")
    clips(tmp_path / "d", labels="c", names=[0])
    with pytest.raises(UserError, match="class c has too few clips"):
        prepare(tmp_path / "d", tmp_path)


def test_a_label_that_training_never_sees_is_refused(tmp_path):
    clips(tmp_path / "d" / "train")
    clips(tmp_path / "d" / "test", labels="abc", names=[0])
    with pytest.raises(UserError, match=r"label c of the test clip .*never seen"):
        prepare(tmp_path / "d", tmp_path)
