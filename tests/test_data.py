"""Clips are read or refused by name, splits are seeded, manifests kept up to date."""

import json
import os

import av
import layouts
import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, tone

from petl_modules import data
from petl_modules.data import clip_cache, datasets, manifests, reading
from petl_modules.errors import UserError

# read_clip


def test_stereo_is_mixed_to_mono(tmp_path):
    left, right = np.full(100, 0.5), np.full(100, -0.25)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE)
    clip = data.read_clip(tmp_path / "a.wav", RATE)
    assert clip.shape == (100,)
    np.testing.assert_allclose(clip, 0.125, atol=1e-4)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_every_depth_is_scaled_to_one(tmp_path, subtype):
    sound = 0.5 * np.sin(np.arange(800) / 5)
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype=subtype)
    clip = data.read_clip(tmp_path / "a.wav", RATE)
    assert str(clip.dtype) == "torch.float32"
    np.testing.assert_allclose(clip, sound, atol=0.01 if subtype == "PCM_U8" else 1e-4)


@pytest.mark.parametrize("rate", [8000, 22050, 22051, 44100, 48000])
def test_other_rates_keep_pitch_and_length(tmp_path, rate):
    tone(tmp_path / "a.wav", 1000, seconds=0.5, rate=rate)
    clip = data.read_clip(tmp_path / "a.wav", RATE)
    assert abs(len(clip) - RATE / 2) <= 2
    assert abs(np.abs(np.fft.rfft(clip)).argmax() * RATE / len(clip) - 1000) < 5


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_compressed_files(tmp_path, suffix):
    tone(tmp_path / f"a.{suffix}", 500, seconds=0.5)
    clip = data.read_clip(tmp_path / f"a.{suffix}", RATE)
    assert abs(len(clip) - RATE / 2) < 1200
    assert abs(np.abs(np.fft.rfft(clip)).argmax() * RATE / len(clip) - 500) < 5


def test_a_path_of_any_letters(tmp_path):
    path = tmp_path / "Vögel und 鳥" / "l'été n°1.wav"
    tone(path, 500)
    assert len(data.read_clip(path, RATE)) == 6400


def broken_clip(path, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "text":
        path.write_text("this is no sound")
    elif kind == "no bytes":
        path.write_bytes(b"")
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0), RATE)
    else:
        value = np.nan if kind == "nan" else np.inf
        sound = np.r_[np.zeros(99), value]
        soundfile.write(path, sound, RATE, subtype="FLOAT")


BROKEN = {
    "text": "cannot be read",
    "no bytes": "cannot be read",
    "no samples": "empty",
    "nan": "NaN",
    "inf": "NaN",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_clip_is_named(tmp_path, kind):
    broken_clip(tmp_path / "bad.wav", kind)
    with pytest.raises(UserError, match=BROKEN[kind]) as refusal:
        data.read_clip(tmp_path / "bad.wav", RATE)
    assert "bad.wav" in str(refusal.value)


def test_a_missing_clip_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.wav"):
        data.read_clip(tmp_path / "gone.wav", RATE)


# make_dataset


@pytest.fixture
def manifest(tmp_path):
    rows = {}
    for i, label in enumerate(["cat", "ant"]):
        path = tmp_path / f"{label}.wav"
        tone(path, 500, seconds=0.4, rate=8000, seed=i)
        rows[label] = {"wav": str(path), "label": label, "duration": 0.4}
    (tmp_path / "m.json").write_text(json.dumps(rows))
    return tmp_path / "m.json"


def test_dataset_gives_resampled_cut_clips(manifest):
    whole = datasets.make_dataset(manifest, RATE)
    cut = datasets.make_dataset(manifest, RATE, max_duration=0.1)
    for a, b in zip(whole, cut, strict=True):
        assert (len(a["sig"]), len(b["sig"])) == (6400, 1600)
        assert a["sig"][:1600].equal(b["sig"])
        assert b["sig"].untyped_storage().nbytes() == 1600 * 4


@pytest.mark.parametrize(("cache_mib", "reads"), [(0, 6), (1, 2), (0.03, 4)])
def test_clips_are_decoded_once_while_memory_lasts(
    manifest, monkeypatch, cache_mib, reads
):
    read, seen = data.read_clip, []
    monkeypatch.setattr(clip_cache, "read_clip", lambda *a: seen.append(a) or read(*a))
    dataset = datasets.make_dataset(manifest, RATE, cache_mib=cache_mib)
    rounds = [[row["sig"] for row in dataset] for _ in range(3)]
    assert len(seen) == reads  # a clip takes 25 KiB: the third case has room for one
    for later in rounds[1:]:
        assert all(a.equal(b) for a, b in zip(rounds[0], later, strict=True))


# make_manifests


@pytest.fixture
def splits(tmp_path):
    """Two classes, one clip of each in every split, with files."""
    found = {}
    for seed, name in enumerate(data.SPLITS):
        found[name] = {}
        for label in "ab":
            path = tmp_path / name / f"{label}00.wav"
            found[name][f"{label}00"] = {"wav": str(path), "label": label}
            tone(path, 300, 0.1, seed=seed)
    return found


def prepare(tmp_path, splits, labels=("a", "b"), **kwargs):
    return data.make_manifests(tmp_path / "save", splits, list(labels), **kwargs)


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_manifests_are_in_speechbrains_format(tmp_path, splits):
    done = prepare(tmp_path, splits)
    assert (done.labels, done.broken) == (["a", "b"], 0)
    rows = json.loads(done.train.read_text(encoding="utf-8"))
    assert rows["a00"] == {**splits["train"]["a00"], "duration": 0.1}
    assert {path.name for path in (tmp_path / "save").iterdir()} == {
        "train.json",
        "valid.json",
        "test.json",
        manifests.MARKER,
    }


def test_what_is_up_to_date_is_not_checked_or_written_again(
    tmp_path, splits, monkeypatch
):
    first = prepare(tmp_path, splits)
    before = stamps(tmp_path / "save")
    monkeypatch.setattr(manifests, "ClipCheck", None)
    assert prepare(tmp_path, splits) == first
    assert stamps(tmp_path / "save") == before


@pytest.mark.parametrize(
    "change", ["clip", "split", "manifest", "marker", "skip_broken"]
)
def test_what_has_changed_is_made_again(tmp_path, splits, change):
    prepare(tmp_path, splits)
    before = stamps(tmp_path / "save")
    if change == "clip":
        tone(tmp_path / "train" / "a00.wav", 300, 0.2)
        os.utime(tmp_path / "train" / "a00.wav", (1, 1))
    elif change == "split":
        splits["test"].pop("b00")
    elif change == "manifest":
        (tmp_path / "save" / "train.json").unlink()
    elif change == "marker":
        (tmp_path / "save" / manifests.MARKER).write_text("{")
    done = prepare(tmp_path, splits, skip_broken=change == "skip_broken")
    assert all(stamps(tmp_path / "save")[n] != t for n, t in before.items())
    rows = json.loads(done.train.read_text())
    assert rows["a00"]["duration"] == (0.2 if change == "clip" else 0.1)
    assert len(json.loads(done.test.read_text())) == len(splits["test"])


def test_the_first_broken_clip_is_named_and_the_others_counted(tmp_path, splits):
    broken_clip(tmp_path / "train" / "a00.wav", "text")
    (tmp_path / "test" / "b00.wav").unlink()
    with pytest.raises(UserError, match=r"a00\.wav.*1 more.*--skip_broken") as refusal:
        prepare(tmp_path, splits)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "save").exists()


def test_broken_clips_are_left_out_with_a_warning(tmp_path, splits, caplog):
    splits["train"]["a01"] = {"wav": str(tmp_path / "bad.wav"), "label": "a"}
    splits["valid"]["b01"] = {"wav": str(tmp_path / "gone.wav"), "label": "b"}
    broken_clip(tmp_path / "bad.wav", "nan")
    done = prepare(tmp_path, splits, skip_broken=True)
    assert done.broken == 2
    for name in ("bad.wav", "gone.wav"):
        assert sum(name in record.getMessage() for record in caplog.records) == 1
    assert set(json.loads(done.train.read_text())) == {"a00", "b00"}
    assert prepare(tmp_path, splits, skip_broken=True).broken == 2


def test_few_shot_draws_from_the_clips_that_can_be_read(tmp_path, splits):
    for i in (1, 2):
        for label in "ab":
            path = tmp_path / "train" / f"{label}0{i}.wav"
            splits["train"][f"{label}0{i}"] = {"wav": str(path), "label": label}
            tone(path, 300, 0.1, seed=i)
    broken_clip(tmp_path / "train" / "a01.wav", "text")
    for seed in range(4):
        done = prepare(tmp_path, splits, shots=2, seed=seed, skip_broken=True)
        drawn = set(json.loads(done.train.read_text()))
        assert {key for key in drawn if key[0] == "a"} == {"a00", "a02"}
        assert len(drawn) == 4
    with pytest.raises(UserError, match="class a has 2 training clips"):
        prepare(tmp_path, splits, shots=3, skip_broken=True)


def test_names_with_braces_and_dollars_are_read_back(tmp_path, splits):
    path = tmp_path / "{data_root} $HOME" / "{0}.wav"
    splits["train"]["a00"] = {"wav": str(path), "label": "a"}
    tone(path, 300, 0.1)
    done = prepare(tmp_path, splits)
    dataset = datasets.make_dataset(done.train, RATE)
    row = next(row for row in dataset if row["id"] == "a00")
    assert row["wav"] == str(path) and len(row["sig"]) == RATE // 10


def test_leaving_out_a_class_of_training_is_refused(tmp_path, splits):
    broken_clip(tmp_path / "train" / "b00.wav", "text")
    with pytest.raises(UserError, match="never seen in training"):
        prepare(tmp_path, splits, skip_broken=True)


def test_labels_that_cannot_be_learnt_are_refused(tmp_path, splits):
    with pytest.raises(UserError, match="here there are 0: none"):
        prepare(tmp_path, splits, labels=())
    with pytest.raises(UserError, match="here there are 1: a"):
        prepare(tmp_path, splits, labels=("a",))
    with pytest.raises(UserError, match="class c has no training clips"):
        prepare(tmp_path, splits, labels="abc")
    with pytest.raises(UserError, match="class b is there twice"):
        prepare(tmp_path, splits, labels="abb")
    splits["valid"]["b00"]["label"] = "c"
    with pytest.raises(UserError, match="label c of the valid clip b00 is never"):
        prepare(tmp_path, splits, labels="abc")
    with pytest.raises(UserError, match="test split has no clips"):
        prepare(tmp_path, {**splits, "test": {}})


def test_manifests_are_sorted_by_id(tmp_path, splits):
    splits["train"] = dict(reversed(splits["train"].items()))
    assert list(json.loads(prepare(tmp_path, splits).train.read_text())) == [
        "a00",
        "b00",
    ]


def test_other_classes_or_shots_are_made_again(tmp_path, splits):
    path = tmp_path / "train" / "a01.wav"
    tone(path, 300, 0.1)
    splits["train"]["a01"] = {"wav": str(path), "label": "a"}
    assert len(json.loads(prepare(tmp_path, splits).train.read_text())) == 3
    drawn = prepare(tmp_path, splits, shots=1)
    assert len(json.loads(drawn.train.read_text())) == 2
    turned = prepare(tmp_path, splits, labels="ba", shots=1)
    assert turned.labels == ["b", "a"]


# inside


def test_inside_keeps_to_the_folder(tmp_path):
    assert data.inside(tmp_path, "a/b.wav") == (tmp_path / "a" / "b.wav").resolve()
    assert data.inside(tmp_path, "a/../b.wav") == (tmp_path / "b.wav").resolve()
    for name in ("../b.wav", "a/../../b.wav", "/etc/passwd", f"../{tmp_path.name}2/x"):
        with pytest.raises(UserError, match="outside its folder"):
            data.inside(tmp_path, name)


def test_a_linked_clip_is_inside(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.wav").symlink_to(tmp_path / "store.wav")
    assert data.inside(tmp_path / "data", "a.wav").name == "a.wav"


# Video files


def test_the_sound_of_a_film_is_read(tmp_path):
    layouts.Recordings(tmp_path).write_film("film.mp4", pitch=2)
    sound = data.read_clip(tmp_path / "film.mp4", 16000)
    assert abs(len(sound) - 8000) < 1000
    spectrum = torch.fft.rfft(sound[2000:6000]).abs()
    assert abs(float(spectrum.argmax()) * 4 - 600) < 10
    assert reading.duration(str(tmp_path / "film.mp4")) == pytest.approx(0.5, abs=0.06)


def test_a_film_without_sound_or_sense_is_named(tmp_path):
    silent, broken = tmp_path / "silent.mp4", tmp_path / "broken.mp4"
    with av.open(str(silent), "w") as film:
        picture = film.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 32
        grey = np.full((32, 32, 3), 128, np.uint8)
        film.mux(picture.encode(av.VideoFrame.from_ndarray(grey)))
        film.mux(picture.encode(None))
    broken.write_bytes(b"no film")
    with pytest.raises(UserError, match=r"silent\.mp4 cannot be read.*no sound track"):
        data.read_clip(silent, 16000)
    with pytest.raises(UserError, match=r"broken\.mp4 cannot be read"):
        data.read_clip(broken, 16000)
