"""One's own recordings from a table, JSON or a folder; and how to get that wrong."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile
from conftest import ROOT, run_here, tone
from tiny import tiny_speech_base, tiny_writer

from petl_modules.data.own import read_own
from petl_modules.data.own_columns import Columns
from petl_modules.data.reading import duration, read_clip
from petl_modules.data.spoken_text import SpokenText, verbalized
from petl_modules.errors import UserError
from petl_modules.files import part_of
from petl_modules.train.config import load_config
from petl_modules.train.recipes import prepare_of

RATE = 16000
OWN = ROOT / "recipes" / "OwnData"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve clips of a second, by two speakers."""
    root = tmp_path_factory.mktemp("own")
    for number in range(12):
        name = f"clips/{'ab'[number % 2]}_{number:02d}.wav"
        tone(root / name, 300 + 40 * number, 1.0, seed=number)
    return root


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.glob("clips/*"))


def table(folder, lines, name="table.csv", ends="\n", encoding="utf-8"):
    path = folder / name
    path.write_bytes("".join(line + ends for line in lines).encode(encoding))
    return path


def labelled(folder, **more):
    """Lines of a table of two classes, and more columns by row number."""
    lines = [",".join(["path", "label", *more])]
    for number, name in enumerate(names(folder)):
        rest = [str(value(number)) for value in more.values()]
        lines.append(",".join([name, "xy"[number // 2 % 2], *rest]))
    return lines


def prepared(data, task="classification", **settings):
    prepare = prepare_of(OWN)
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    config = load_config(
        OWN / "hparams/adapter.yaml",
        [f"--data={data}", f"--task={task}", *arguments],
        prepare,
    )
    from petl_modules.knobs import filled

    return prepare(**filled(prepare, config.settings()))


# Forms


def test_every_form_holds_the_same_rows(folder):
    lines = labelled(folder)
    rows = [line.split(",") for line in lines[1:]]
    objects = [{"path": path, "label": label} for path, label in rows]
    plain = table(folder, lines)
    expected = [(r.file, r.label) for r in read_own(plain, Columns()).rows]
    assert len(expected) == 12
    for name, text, encoding in (
        ("a.tsv", "\n".join(line.replace(",", "\t") for line in lines), "utf-8"),
        ("b.csv", "\r\n".join(line.replace(",", ";") for line in lines), "utf-8-sig"),
        ("c.csv", "\n\n".join(line.replace(",", " | ") for line in lines), "utf-16"),
        ("d.jsonl", "\n".join(map(json.dumps, objects)), "utf-8"),
        ("e.json", json.dumps(objects), "utf-8"),
    ):
        path = folder / name
        path.write_bytes(text.encode(encoding))
        found = read_own(path, Columns(), "classification")
        assert [(r.file, r.label) for r in found.rows] == expected, name
        assert not found.complaints


def test_a_saved_data_set_of_the_library_datasets(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [line.split(",") for line in labelled(folder)[1:]]
    sounds = [{"bytes": (folder / p).read_bytes(), "path": "a.wav"} for p, _ in rows]
    content = {"audio": sounds, "label": [label for _, label in rows]}
    whole = datasets.Dataset.from_dict(content).class_encode_column("label")
    whole = whole.cast_column("audio", datasets.Audio(decode=False))
    parts = datasets.DatasetDict({"train": whole, "validation": whole.select([0, 2])})
    parts.save_to_disk(tmp_path / "saved")
    found = read_own(tmp_path / "saved", Columns(), "classification")
    assert [row.label for row in found.rows][:12] == [label for _, label in rows]
    assert [row.split for row in found.rows] == ["train"] * 12 + ["valid"] * 2
    clip = read_clip(found.rows[3].wav, RATE)
    assert clip.equal(read_clip(folder / rows[3][0], RATE))


def test_a_folder_with_a_table_in_it(folder, tmp_path):
    lines = ["file_name,label", "a.wav,x", "b.wav,y"]
    table(tmp_path, lines, "metadata.csv")
    found = read_own(tmp_path, Columns(), "classification")
    assert [row.file.name for row in found.rows] == ["a.wav", "b.wav"]


def test_labels_groups_and_splits_from_names(folder):
    pattern = r"(?P<label>[ab])_(?P<group>\d)"
    found = read_own(
        folder / "clips", replace(Columns(), name_pattern=pattern), "classification"
    )
    assert {(row.label, row.group) for row in found.rows} == {
        ("a", "0"), ("b", "0"), ("a", "1"), ("b", "1")
    }  # fmt: skip
    short = read_own(folder, replace(Columns(), name_pattern="/([ab])_"))
    assert [row.label for row in short.rows] == [n[6] for n in names(folder)]
    with pytest.raises(UserError, match="does not match"):
        read_own(folder, replace(Columns(), name_pattern="(z)")).refuse()
    for pattern, said in (
        ("(", "no regular"),
        ("a", "must have"),
        ("(?P<o>a)", "must"),
    ):
        with pytest.raises(UserError, match=said):
            read_own(folder, replace(Columns(), name_pattern=pattern))


# What is wrong names its row


BAD = {
    "a missing column": (["file,label", "a.wav,x"], "no column path, but file, label"),
    "no label": (["path,text", "a.wav,x"], "no column label, but path, text"),
    "mixed separators": (["path,label", "a.wav;x"], "line 2, parts into 1"),
    "one too many": (["path,label", "a.wav,x", "b.wav,x,y"], "line 3, parts into 3"),
    "a column twice": (["path,label,label", "a.wav,x,y"], "two columns"),
    "a path twice": (
        ["path,label", "a.wav,x", "a.wav,y"],
        r"line 3, repeats a\.wav of",
    ),
    "no path": (["path,label", ",x"], "line 2, has no path"),
    "an empty label": (["path,label", "a.wav,"], "line 2, has no label"),
    "a path outside": (["path,label", "../a.wav,x"], "line 2, names a file outside"),
    "an absolute path": (["path,label", "/a.wav,x"], "line 2, names a file outside"),
    "a negative time": (
        ["path,label,start,end", "clips/a_00.wav,x,-1,1"],
        "line 2, has the start -1",
    ),
    "no number": (
        ["path,label,start,end", "clips/a_00.wav,x,0:10,1"],
        "line 2, has the start 0:10",
    ),
    "not a number": (
        ["path,label,start,end", "clips/a_00.wav,x,nan,1"],
        "line 2, has the start nan",
    ),
    "an end before the start": (
        ["path,label,start,end", "clips/a_00.wav,x,0.9,0.5"],
        "line 2, ends at 0.5 s, before its start",
    ),
    "times beyond the clip": (
        ["path,label,start,end", "clips/a_00.wav,x,0.5,7"],
        r"line 2, goes to 7 s, and a_00\.wav ends at 1\.00 s",
    ),
    "an unknown split": (
        ["path,label,split", "a.wav,x,train", "b.wav,x,holdout"],
        "line 3, has the split holdout, which is none of dev,",
    ),
    "no split": (
        ["path,label,split", "a.wav,x,train", "b.wav,x,"],
        "line 3, has no split",
    ),
    "a label of the test set alone": (
        ["path,label,split", "a.wav,x,train", "b.wav,y,test"],
        "line 3, is in test with y, which no training row has",
    ),
    "parts that overlap": (
        [
            "path,label,split,start,end",
            "clips/a_00.wav,x,train,0,0.5",
            "clips/a_00.wav,x,test,0.4,0.9",
        ],
        "line 3, is in test and overlaps .*line 2, which is in train",
    ),
    "no rows": (["path,label"], "lists no recordings"),
    "nothing": ([], "lists no recordings"),
    "an open quote": (["path,label", 'a.wav,"x'], "cannot be read as a table"),
}


@pytest.mark.parametrize(("lines", "said"), BAD.values(), ids=BAD)
def test_a_bad_table_ends_in_one_sentence(folder, lines, said):
    path = table(folder, lines, "bad.csv")
    with pytest.raises(UserError, match=said) as caught:
        read_own(path, Columns(), "classification").refuse()
    assert "\n" not in str(caught.value) and str(path.name) in str(caught.value)


def test_other_bad_lists(folder):
    (folder / "bad.csv").write_bytes(bytes(range(256)) * 9)
    (folder / "bad.jsonl").write_text(
        '{"path": "a.wav", "label": "x"}\n{"path": \n[]\n'
    )
    (folder / "bad.json").write_text("[{")
    for name, said in (
        ("bad.csv", "bad.csv is damaged: it is no text"),
        ("bad.jsonl", r"bad\.jsonl, line 2, is no JSON"),
        ("bad.json", "is no JSON"),
        ("gone.csv", "is missing"),
    ):
        with pytest.raises(UserError, match=said):
            read_own(folder / name, Columns(), "classification").refuse()
    found = read_own(folder / "bad.jsonl", Columns())
    assert len(found.complaints) == 2 and len(found.rows) == 1
    with pytest.raises(UserError, match="no column speaker, but path"):
        read_own(table(folder, labelled(folder)), Columns(group_column="speaker"))


def test_empty_texts_name_their_row(folder):
    path = table(folder, ["path,text", "a.wav,one", "b.wav,", "c.wav,!?"])
    found = read_own(path, Columns(), "ctc")
    with pytest.raises(UserError, match="line 3, has no text"):
        found.refuse()
    with pytest.raises(UserError, match=r"line 4, has a text without letters: !\?"):
        SpokenText().row(found.rows[1], plain=True)
    assert SpokenText().row(found.rows[1], plain=False).text == "!?"


def test_splits_go_by_the_names_that_people_give_them(folder):
    splits = ["Train", "training", "dev", "validation", "val", "TEST", "eval"]
    lines = labelled(folder, split=lambda i: splits[i % len(splits)])
    found = read_own(table(folder, lines), Columns(), "classification")
    known = ["train", "train", "valid", "valid", "valid", "test", "test"]
    assert [row.split for row in found.rows] == [known[i % 7] for i in range(12)]
    assert not found.complaints


def test_rare_classes_are_refused_or_dropped(folder):
    lines = [*labelled(folder)[:-1], f"{names(folder)[-1]},z"]
    path = table(folder, lines)
    with pytest.raises(UserError, match="z has 1 clips, fewer than min_clips=2"):
        prepared(path, min_clips=2)
    splits, labels = prepared(path, min_clips=2, rare="drop", valid_fraction=0.3)
    assert labels == ["x", "y"]
    assert sum(map(len, splits.values())) == 11


# Splits


def keys_by_split(splits):
    return {name: set(entries) for name, entries in splits.items()}


@pytest.mark.parametrize("task", ["classification", "tags", "ctc"])
def test_groups_stay_together_and_the_seed_decides(folder, task):
    lines = labelled(
        folder,
        labels=lambda i: f'"{"xy"[i % 2]},{"pq"[i // 3 % 2]}"',
        text=lambda i: f"word {i}",
        group=lambda i: f"g{i // 2}",
    )
    path = table(folder, lines)
    splits, _ = prepared(path, task)
    groups = [{e["group"] for e in part.values()} for part in splits.values()]
    assert all(groups) and len(set().union(*groups)) == sum(map(len, groups)) == 6
    again, _ = prepared(path, task)
    others = [keys_by_split(prepared(path, task, seed=s)[0]) for s in range(1, 5)]
    assert keys_by_split(again) == keys_by_split(splits)
    assert any(other != keys_by_split(splits) for other in others)
    reversed_rows = table(folder, [lines[0], *lines[:0:-1]], "reversed.csv")
    assert keys_by_split(prepared(reversed_rows, task)[0]) == keys_by_split(splits)


def test_each_group_tests_once_in_folds(folder):
    path = table(folder, labelled(folder, group=lambda i: f"g{i // 2}"))
    tested, settings = [], {"folds": "[1,2,3]"}
    for fold in (1, 2, 3):
        splits, _ = prepared(path, fold=fold, **settings)
        parts = keys_by_split(splits)
        assert not (parts["train"] & parts["test"] or parts["valid"] & parts["test"])
        tested += sorted({entry["group"] for entry in splits["test"].values()})
    assert sorted(tested) == [f"g{i}" for i in range(6)]
    with pytest.raises(UserError, match="fewer than 20 folds"):
        prepared(path, fold=1, folds=str(list(range(1, 21))))
    divided = table(folder, labelled(folder, split=lambda i: ["train", "test"][i % 2]))
    with pytest.raises(UserError, match="says the splits"):
        prepared(divided, fold=1, **settings)


def test_a_label_of_one_group_trains(folder):
    lines = labelled(
        folder, labels=lambda i: f'"common{",alone" if i == 7 else ""}{",b" * (i % 2)}"'
    )
    path = table(folder, lines)
    for seed in range(4):
        splits, labels = prepared(path, "tags", seed=seed)
        trained = {x for e in splits["train"].values() for x in e["labels"]}
        assert trained == set(labels) == {"alone", "b", "common"}


# Parts of long recordings


def test_parts_of_a_recording_are_read_by_their_times(folder, tmp_path):
    rate, rng = 22050, np.random.default_rng(0)
    sound = np.convolve(rng.standard_normal(rate * 6), np.ones(8) / 30, "same")
    sound = sound.astype(np.float32)
    for name in ("a.flac", "a.wav", "a.ogg"):
        soundfile.write(tmp_path / name, sound, rate)
    with av.open(str(tmp_path / "a.mp3"), "w") as film:
        stream = film.add_stream("libmp3lame", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
        frame.rate = rate
        film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    for name in ("a.flac", "a.wav", "a.ogg", "a.mp3"):
        whole = read_clip(tmp_path / name, rate)
        for start, end in ((0, 2), (0.5, 1.5), (3.25, 4.5), (5, None)):
            found = read_clip(part_of(tmp_path / name, start, end), rate)
            wanted = whole[round(start * rate) : end and round(end * rate)]
            assert found.equal(wanted), (name, start, end)
    assert duration(part_of(tmp_path / "a.flac", 1, 2.5)) == 1.5
    with pytest.raises(UserError, match=r"ends at 6\.00 s, before the 8 s"):
        duration(part_of(tmp_path / "a.flac", 5, 8))
    with pytest.raises(UserError, match="no samples from 7 s on"):
        duration(part_of(tmp_path / "a.mp3", 7, 8))


def test_parts_of_one_recording_stay_on_one_side(folder):
    lines = ["path,label,start,end"]
    for number, name in enumerate(names(folder)):
        label = "xy"[number // 2 % 2]
        lines += [f"{name},{label},0,0.4", f"{name},{label},0.4,1"]
    splits, _ = prepared(table(folder, lines))
    files = [{e["group"] for e in part.values()} for part in splits.values()]
    assert sum(map(len, files)) == len(set().union(*files)) == 12
    assert sum(map(len, splits.values())) == 24


# Texts


def test_numbers_are_said_in_the_language(folder):
    pytest.importorskip("num2words")
    path = table(folder, ["path,text", "a.wav,Take 25% of 3 €"])
    row = read_own(path, Columns(), "ctc").rows[0]
    said = SpokenText(verbalize=True).row(row, plain=True).text
    assert said == "take twenty five percent of three euros"
    assert SpokenText().row(row, plain=True).text == "take 25 of 3"
    german = SpokenText("de", verbalize=True).row(row, plain=True).text
    assert german == "take fünfundzwanzig prozent of drei euro"
    assert verbalized("the 2nd & 1,250.5 km", "en") == (
        "the second and one thousand two hundred and fifty point five kilometers"
    )
    with pytest.raises(UserError, match="language=xx"):
        verbalized("1", "xx")


# Runs of the tasks that write and speak


def texts(folder):
    """A table of texts by two voices in three splits."""
    lines = ["path,text,split,label"]
    for number, name in enumerate(names(folder)):
        split = {3: "dev", 7: "dev", 2: "test", 6: "test"}.get(number, "train")
        lines.append(f"{name},Go on 2,{split},{name[6]}")
    return table(folder, lines, "texts.csv")


@pytest.mark.parametrize(
    ("task", "metric", "labels"),
    [
        ("ctc", "word_error_rate", ["<blank>", *"gnotw\u2581"]),
        ("seq2seq", "word_error_rate", None),
        ("tts", "mcd", ["a", "b"]),
    ],
)
def test_texts_and_voices_are_learnt_from_one_table(
    folder, checkpoints, tmp_path, task, metric, labels
):
    pytest.importorskip("num2words")
    source = {"ctc": lambda: checkpoints["wav2vec2"], "seq2seq": tiny_writer}.get(task)
    if task == "tts":
        source = tiny_speech_base
    home = tmp_path / "source"
    home.mkdir()
    run_here(
        "OwnData",
        f"--data={texts(folder)}",
        f"--task={task}",
        f"--source={source() if task == 'ctc' else source(home)}",
        f"--output_folder={tmp_path / 'out'}",
        "--method=bitfit",
        "--number_of_epochs=1",
        "--batch_size=4",
        *(() if task == "seq2seq" else ("--verbalize=True",)),
    )
    (path,) = (tmp_path / "out").glob("**/results.json")
    result = json.loads(path.read_text())
    assert result["metrics"]["test"][metric] >= 0
    assert result["clips"] == {"train": 8, "valid": 2, "test": 2}
    info = json.loads((path.parent / "adapter.json").read_text())["info"]
    assert info["labels"] == labels


def test_the_command_line_says_what_is_wrong_before_training(folder, tmp_path, capsys):
    lines = ["path,label", "clips/a_00.wav,x", "clips/a_00.wav,x"]
    for arguments, said in (
        ((), "error: --data=TABLE names a csv"),
        (("--task=speech",), "task=speech is unknown: choose classification or tags"),
        ((f"--data={table(folder, lines)}",), "line 3, repeats clips/a_00.wav"),
    ):
        with pytest.raises(SystemExit) as stop:
            run_here("OwnData", f"--output_folder={tmp_path}", *arguments)
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
