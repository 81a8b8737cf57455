"""Data sets as they are really distributed, and as people keep them."""

import layouts
import pytest
from conftest import tone
from test_prepare import prepare_function

from petl_modules.errors import UserError

SPELT = {"tokens": "char", "vocab_size": 0}
HELD_OUT = {"valid_sentences": 1, "test_sentences": 1, "seed": 0}


def folders(root, *names, clips=5):
    for name in names:
        for i in range(clips):
            tone(root / name / f"{i}.wav", 300, 0.1, seed=i)
    return root


def texts_of(splits):
    return sorted({e["text"] for part in splits.values() for e in part.values()})


# ESD


@pytest.mark.parametrize("kind", ["cp1252", "blanks", "mixed"])
def test_esd_lists_in_other_encodings_or_parted_by_blanks(tmp_path, kind, caplog):
    layouts.esd(tmp_path)
    listing = tmp_path / "0012" / "0012.txt"
    text = listing.read_text()
    if kind == "cp1252":
        listing.write_bytes(text.replace("Abba!", "Abba\u2019s!").encode("cp1252"))
    elif kind == "blanks":
        listing.write_text(text.replace("\t", " "))
    else:
        listing.write_text(text.replace("\t", " ", 20))
    splits, _ = prepare_function("ESD", "prepare_text")(tmp_path, None, **SPELT)
    assert "without a text" not in caplog.text
    spoken = ["abba", "abba's"] if kind == "cp1252" else ["abba"]
    assert texts_of(splits) == [*spoken, "bee abba"]


def test_esd_speakers_whose_files_have_the_same_names(tmp_path):
    for speaker in ("0011", "0012"):
        folders(tmp_path / speaker, "Happy", "Sad", clips=60)
    splits, _ = prepare_function("ESD")(tmp_path)
    assert [len(part) for part in splits.values()] == [40, 80, 120]


def test_vctk_and_libritts_keep_files_with_the_same_names(tmp_path):
    folders(tmp_path / "wav48", "p1", "p2", clips=10)
    splits, _ = prepare_function("VCTK")(tmp_path)
    assert sum(map(len, splits.values())) == 20
    for name in ("train/1/7", "train/2/7"):
        folders(tmp_path, name, clips=3)
        for i in range(3):
            (tmp_path / name / f"{i}.normalized.txt").write_text(f"{name} {i}.")
    splits, names = prepare_function("LibriTTS", "prepare_speech")(
        tmp_path, ["train"], None, [], **HELD_OUT
    )
    assert names == ["1", "2"] and sum(map(len, splits.values())) == 6


def test_librispeech_sets_that_share_names_keep_all_of_them(tmp_path):
    for part in ("train-a", "train-b", "dev", "test"):
        chapter = tmp_path / part / "1" / "2"
        tone(chapter / "1-2-0000.flac", 300, 0.1)
        (chapter / "1-2.trans.txt").write_text("1-2-0000 ABBA\n")
    splits = prepare_function("LibriSpeech", "prepare_text")(
        tmp_path, ["train-a", "train-b"], "dev", "test", **SPELT
    )[0]
    assert len(splits["train"]) == 2


# L2-ARCTIC


@pytest.mark.parametrize("transcribed", [True, False])
def test_l2arctics_spontaneous_speech_is_no_speaker(tmp_path, transcribed):
    layouts.l2arctic(tmp_path)
    (tmp_path / "YKWK/wav/arctic_b0001.wav").unlink()
    suitcase = tmp_path / "suitcase_corpus"
    for speaker in ("aba", "ykwk"):
        tone(suitcase / "wav" / f"{speaker}.wav", 300)
        if transcribed:
            (suitcase / "transcript").mkdir(exist_ok=True)
            (suitcase / "transcript" / f"{speaker}.txt").write_text("A suitcase.")
    prepare = prepare_function("L2ARCTIC", "prepare_speech")
    splits, names = prepare(tmp_path, None, [], **HELD_OUT)
    assert names == ["ABA", "YKWK"]
    assert sum(map(len, splits.values())) == 12


# Own folders


@pytest.mark.parametrize(
    "names",
    [("Train", "Test"), ("training", "testing"), ("TRAIN", "dev"), ("train", "eval")],
)
def test_split_folders_by_their_usual_names(tmp_path, names):
    for name in names:
        folders(tmp_path / name, "dog", "cat")
    splits, labels = prepare_function("AudioFolder")(tmp_path, tmp_path)
    assert labels == ["cat", "dog"]
    held_out = "valid" if "dev" in names else "test"
    assert sorted(splits[held_out]) == [
        f"{c}/{i}.wav" for c in labels for i in range(5)
    ]
    assert all("/" + names[0] + "/" in e["wav"] for e in splits["train"].values())


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Train", "Testing")])
def test_splits_without_classes_are_no_classes(tmp_path, names):
    folders(tmp_path, *names)
    with pytest.raises(UserError, match=r"The clips in .* have no class: it must"):
        prepare_function("AudioFolder")(tmp_path, tmp_path)


def test_two_folders_of_one_split_are_refused(tmp_path):
    for name in ("train", "val", "dev"):
        folders(tmp_path / name, "dog", "cat")
    with pytest.raises(UserError, match="several of one split: dev, train, val"):
        prepare_function("AudioFolder")(tmp_path, tmp_path)


def test_linked_classes_and_clips_are_not_lost(tmp_path):
    folders(tmp_path / "store", "dog", "cat", "bird")
    root = tmp_path / "data"
    (root / "cat").mkdir(parents=True)
    (root / "dog").symlink_to(tmp_path / "store" / "dog")
    for i in range(5):
        (root / "cat" / f"{i}.wav").symlink_to(tmp_path / "store" / "cat" / f"{i}.wav")
    (root / "cat" / "gone.wav").symlink_to(tmp_path / "store" / "gone.wav")
    splits, labels = prepare_function("AudioFolder")(root, tmp_path)
    assert labels == ["cat", "dog"]
    found = sorted(key for part in splits.values() for key in part)
    assert len(found) == 11 and "cat/gone.wav" in found  # missing, as its check says


def test_a_name_is_one_class_in_both_forms_of_its_accent(tmp_path):
    forms = {"train": "cafe\u0301", "test": "caf\u00e9"}  # of macOS, and all others
    for part, name in forms.items():
        folders(tmp_path / part, name, "bar")
    splits, labels = prepare_function("AudioFolder")(tmp_path, tmp_path)
    assert labels == ["bar", "caf\u00e9"]
    assert {e["label"] for e in splits["test"].values()} == {*labels}


@pytest.mark.parametrize("twin", ["Dog", "dog "])
def test_classes_of_almost_the_same_name_are_said(tmp_path, twin, caplog):
    folders(tmp_path, "dog", twin, "cat")
    prepare_function("AudioFolder")(tmp_path, tmp_path)
    first, second = sorted(("dog", twin))
    assert f"{first} and {second} are taken for two classes" in caplog.text


def test_what_archives_leave_behind_is_no_clip(tmp_path):
    folders(tmp_path, "dog", "cat")
    for name in ("__MACOSX/dog/._0.wav", "dog/._0.wav", "dog/Thumbs.db", ".DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    splits, labels = prepare_function("AudioFolder")(tmp_path, tmp_path)
    assert labels == ["cat", "dog"] and sum(map(len, splits.values())) == 10


# Texts


def test_quotes_that_a_converter_misread_are_quotes(tmp_path):
    layouts.meld(tmp_path)
    table = tmp_path / "dev_sent_emo.csv"
    text = table.read_text(encoding="utf-8").replace("Abba!", "He\x92s in", 1)
    table.write_text(text, encoding="utf-8")
    splits, _ = prepare_function("MELD", "prepare_text")(tmp_path, **SPELT)
    assert splits["valid"]["dia0_utt0"]["text"] == "he's in"


def test_only_turns_of_a_speaker_are_turns(tmp_path):
    layouts.iemocap(tmp_path)
    turns = tmp_path / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    text = turns.read_text()
    for odd in ("Ses01", "Ses01F_impro01_X000"):
        turns.write_text(text.replace("Ses01F_impro01_F000", odd))
        splits, _ = prepare_function("IEMOCAP")(tmp_path, fold=1)
        assert sum(map(len, splits.values())) == 99


def test_line_separators_within_texts_part_no_lines(tmp_path):
    fleurs, ljspeech = tmp_path / "fleurs", tmp_path / "ljspeech"
    for folder in (fleurs, ljspeech):
        folder.mkdir()
    layouts.fleurs(fleurs)
    listing = fleurs / "train.tsv"
    listing.write_text(listing.read_text().replace("\tabba\t", "\tabba\u2028bee\t", 1))
    splits, _ = prepare_function("FLEURS")(fleurs, "en_us", **SPELT)
    assert "abba bee" in texts_of(splits)
    layouts.ljspeech(ljspeech)
    listing = ljspeech / "metadata.csv"
    listing.write_text(listing.read_text().replace("A big dog|", "A big\x85 dog|", 1))
    prepare = prepare_function("LJSpeech", "prepare_speech")
    before = sum(map(len, prepare(ljspeech, **HELD_OUT)[0].values()))
    assert before == len(listing.read_text().strip().split("\n"))
    with open(listing, "a") as stream:
        stream.write("LJ001-0001|Again.|Again.\n")
    with pytest.raises(UserError, match=r"metadata\.csv, line .* repeats LJ001-0001"):
        prepare(ljspeech, **HELD_OUT)
