"""Clips are looked at once for all runs, and only those that are used."""

import json
import os
import sqlite3
import subprocess
import sys
import threading

import pytest
from conftest import tone

from petl_modules import data
from petl_modules.data import clips
from petl_modules.errors import UserError


@pytest.fixture
def looked_at(tmp_path, monkeypatch):
    """A cache of its own, and the names of the clips that are decoded."""
    monkeypatch.setenv("PETL_CACHE", str(tmp_path / "cache"))
    seen, duration = [], clips.duration
    monkeypatch.setattr(
        clips, "duration", lambda wav: seen.append(wav.split("/")[-1]) or duration(wav)
    )
    return seen


@pytest.fixture
def splits(tmp_path):
    """Two classes with six clips each to train on, one to validate, one to test."""
    found = {"train": {}, "valid": {}, "test": {}}
    counts = {"train": range(6), "valid": [6], "test": [7]}
    for name, numbers in counts.items():
        for key in (f"{label}{i}" for label in "ab" for i in numbers):
            path = tmp_path / f"{key}.wav"
            tone(path, 300, 0.1)
            found[name][key] = {"wav": str(path), "label": key[0]}
    return found


def prepare(tmp_path, splits, run="run", **kwargs):
    return data.make_manifests(tmp_path / run, splits, ["a", "b"], **kwargs)


def trained_on(prepared):
    return sorted(json.loads(prepared.train.read_text()))


def test_the_next_run_decodes_nothing_again(tmp_path, splits, looked_at):
    first = prepare(tmp_path, splits)
    assert len(looked_at) == 16
    looked_at.clear()
    second = prepare(tmp_path, splits, run="another")
    assert looked_at == []
    assert first.train.read_text() == second.train.read_text()
    tone(tmp_path / "a3.wav", 300, 0.2)  # one clip has changed
    third = prepare(tmp_path, splits, run="later")
    assert looked_at == ["a3.wav"]
    assert json.loads(third.train.read_text())["a3"]["duration"] == 0.2


def test_clips_that_are_broken_are_looked_at_again(tmp_path, splits, looked_at):
    (tmp_path / "a3.wav").write_text("no sound")
    for run in "xyz":
        with pytest.raises(UserError, match=r"a3\.wav cannot be read"):
            prepare(tmp_path, splits, run=run)
    assert looked_at.count("a3.wav") == 3 and len(looked_at) == 18


def test_few_shot_looks_at_what_it_draws(tmp_path, splits, looked_at):
    drawn = trained_on(prepare(tmp_path, splits, shots=2, seed=1))
    assert len(drawn) == 4
    assert sorted(looked_at) == sorted(
        f"{key}.wav" for key in [*drawn, "a6", "a7", "b6", "b7"]
    )
    # a clip that it does not draw may be broken
    other = next(key for key in splits["train"] if key not in drawn)
    (tmp_path / f"{other}.wav").write_text("no sound")
    assert trained_on(prepare(tmp_path, splits, "more", shots=2, seed=1)) == drawn


def test_a_broken_draw_is_drawn_again_the_same_way(tmp_path, splits, looked_at):
    drawn = trained_on(prepare(tmp_path, splits, shots=2, seed=1))
    broken = next(key for key in drawn if key[0] == "a")
    (tmp_path / f"{broken}.wav").write_text("no sound")
    with pytest.raises(UserError, match=f"{broken}.wav cannot be read"):
        prepare(tmp_path, splits, shots=2, seed=1)
    options = {"shots": 2, "seed": 1, "skip_broken": True}
    again = [trained_on(prepare(tmp_path, splits, run, **options)) for run in "xy"]
    assert again[0] == again[1]
    kept = set(drawn) - {broken}
    assert kept < set(again[0]) and sum(key[0] == "a" for key in again[0]) == 2


def test_a_damaged_index_is_made_again(tmp_path, splits, looked_at):
    prepare(tmp_path, splits)
    (tmp_path / "cache" / "clips.sqlite").write_bytes(b"no database at all" * 100)
    prepare(tmp_path, splits, "second")
    prepare(tmp_path, splits, "third")
    assert len(looked_at) == 32


def test_a_cache_that_cannot_be_written_is_no_matter(tmp_path, splits, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PETL_CACHE", str(tmp_path / "file" / "cache"))
    assert len(trained_on(prepare(tmp_path, splits))) == 12


def test_several_processes_share_the_index(tmp_path, splits, looked_at):
    look = (
        "import json, sys; from petl_modules.data.clips import ClipCheck; "
        "entries = json.load(open(sys.argv[1])); "
        "assert len(ClipCheck().whole(entries)) == len(entries)"
    )
    (tmp_path / "entries.json").write_text(json.dumps(splits["train"]))
    command = [sys.executable, "-c", look, str(tmp_path / "entries.json")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with sqlite3.connect(tmp_path / "cache" / "clips.sqlite") as known:
        assert known.execute("SELECT count(*) FROM clips_1").fetchone() == (12,)


def test_who_stops_a_check_waits_for_no_more_clips(monkeypatch, tmp_path):
    monkeypatch.setenv("PETL_CACHE", str(tmp_path / "cache"))
    begun, go_on = [], threading.Event()

    def stopped(wav):
        begun.append(wav)
        if wav == "0":
            raise KeyboardInterrupt
        go_on.wait(10)
        return 1.0

    monkeypatch.setattr(clips, "duration", stopped)
    entries = {str(i): {"wav": str(i)} for i in range(500)}
    with pytest.raises(KeyboardInterrupt):
        clips.ClipCheck().whole(entries)
    go_on.set()
    assert len(begun) <= 2 * clips.THREADS


def test_held_out_clips_that_train_are_refused(tmp_path, splits):
    splits["valid"] |= {"b0": splits["train"]["b0"]}
    with pytest.raises(UserError, match="valid split holds 1 of the clips that train"):
        prepare(tmp_path, splits)
    splits["valid"] = dict(splits["train"])
    with pytest.raises(UserError, match=r"holds 12 of the clips .* such as a0"):
        prepare(tmp_path, splits)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_held_out_clips_that_train_by_another_name_are_refused(tmp_path, splits, link):
    link(splits["train"]["b0"]["wav"], tmp_path / "other.wav")
    splits["test"] |= {"x": {**splits["train"]["b0"], "wav": f"{tmp_path}/other.wav"}}
    with pytest.raises(UserError, match="test split holds 1 of the clips that train"):
        prepare(tmp_path, splits)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a0": 1}', '{"a0": {"wav": 3}}'])
def test_manifests_changed_by_hand_are_refused(tmp_path, splits, text):
    done = prepare(tmp_path, splits)
    done.valid.write_text(text)
    with pytest.raises(UserError, match=r"valid\.json is not as it was made.*delete"):
        prepare(tmp_path, splits)


def test_an_output_folder_that_cannot_be_is_named(tmp_path, splits):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/run cannot be made: Not a directory"):
        prepare(tmp_path, splits, run="file/run")
