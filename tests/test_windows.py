"""Long recordings are answered by windows, with the right times, whatever the file."""

import csv
import io
import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from conftest import tone
from test_inference import saved

from petl_modules.data.reading import read_pieces
from petl_modules.errors import UserError
from petl_modules.tasks.heads import CTCHead
from petl_modules.use.inference import load_adapter
from petl_modules.use.predict import main
from petl_modules.use.windows import answer_windows, segments, windows

RATE = 16000


class Pitch:
    """Stands for adapters that tell a low tone from a high one without a mistake."""

    backbone = SimpleNamespace(sample_rate=RATE, capacity=lambda: 10 * RATE)
    in_use = "pitch"
    heard = 0

    def gives(self, name):
        return "label"

    def longest(self, name):
        return 5.0

    def told(self, name, chances):
        label = ["low", "high"][int(chances.argmax())]
        probabilities = dict(zip(["low", "high"], chances.tolist(), strict=True))
        return {"label": label, "probability": probabilities[label]} | {
            "probabilities": probabilities
        }

    def classify_batch(self, wavs, lens, names):
        self.heard = max(self.heard, wavs.numel())
        spectrum = torch.fft.rfft(wavs).abs()
        split = 1000 * wavs.shape[1] // RATE
        low = spectrum[:, :split].square().sum(1)
        return (
            torch.stack([low, spectrum[:, split:].square().sum(1)], 1)
            .float()
            .div(spectrum.square().sum(1, keepdim=True))
        )


def tones(path, plan, rate=RATE):
    """A file of tones, `(hertz, seconds)` each."""
    parts = [
        0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
        for hertz, seconds in plan
    ]
    soundfile.write(path, np.concatenate(parts), rate)
    return path


@pytest.mark.parametrize("rate", [16000, 22050])
@pytest.mark.parametrize("window, hop", [(1.0, None), (1.0, 0.25), (2.0, 2.0)])
def test_answers_have_the_times_at_which_the_sound_changes(tmp_path, rate, window, hop):
    path = tones(tmp_path / "a.wav", [(200, 60), (3000, 10), (200, 31.3)], rate)
    answers = answer_windows(Pitch(), path, window, hop)
    assert [a["label"] for a in answers] == ["low", "high", "low"]
    assert answers[0]["start"] == 0 and answers[-1]["end"] == pytest.approx(101.3)
    for before, after in pairwise(answers):
        assert before["end"] == after["start"]
    assert answers[1]["start"] == pytest.approx(60, abs=window / 2)
    assert answers[1]["end"] == pytest.approx(70, abs=window / 2)


def test_a_long_file_is_never_in_memory_whole(tmp_path, monkeypatch):
    path = tones(tmp_path / "a.flac", [(200, 240), (3000, 60)], 8000)
    backbone = SimpleNamespace(sample_rate=8000, capacity=lambda: None)
    monkeypatch.setattr(Pitch, "backbone", backbone)
    longest = []
    monkeypatch.setattr(
        "petl_modules.use.windows.read_pieces",
        lambda *given: (longest.append(len(p)) or p for p in read_pieces(*given)),
    )
    pitch = Pitch()
    answers = answer_windows(pitch, path, 2.0, batch_size=4)
    assert [a["end"] for a in answers][-1] == 300
    assert pitch.heard <= 4 * 2 * 8000 and max(longest) < 100 * 8000


@pytest.mark.parametrize("given", [(1e-9,), (1.0, 1e-9), (float("nan"),), (True,)])
def test_lengths_that_no_window_has_are_refused(tmp_path, given):
    path = tones(tmp_path / "a.wav", [(200, 1)], 8000)
    with pytest.raises(UserError, match=r"(window|hop)=.* must be"):
        answer_windows(Pitch(), path, *given)


def test_windows_cover_all_of_the_sound_and_the_last_one_ends_with_it():
    sound = torch.arange(1037.0)
    for size, step in ((100, 50), (100, 100), (64, 7), (2000, 500)):
        for length in (1, 13, 400):
            found = list(windows(iter(sound.split(length)), size, step))
            covered = torch.zeros(1037, dtype=torch.bool)
            for start, clip in found:
                assert torch.equal(clip, sound[start : start + len(clip)])
                covered[start : start + len(clip)] = True
            assert covered.all()
            assert found[-1][0] + len(found[-1][1]) == 1037
            assert all(len(clip) == min(size, 1037) for _, clip in found)


@pytest.mark.parametrize("length", [700, 5000, 10**6])
def test_segments_end_where_it_is_quiet(length):
    sound = torch.sin(torch.arange(round(11.8 * RATE)) * 0.3)
    gaps = [(0.9 * turn + 0.75, 0.9 * turn + 1.0) for turn in range(12)]
    for start, end in gaps:
        sound[round(start * RATE) : round(end * RATE)] *= 0.01
    found = list(segments(iter(sound.split(length)), round(1.2 * RATE), RATE))
    assert torch.equal(torch.cat([clip for _, clip in found]), sound)
    ends = [start / RATE for start, _ in found[1:]]
    assert len(ends) >= 10 and max(len(clip) for _, clip in found) <= 1.2 * RATE
    assert all(any(s < end < e for s, e in gaps) for end in ends)


def test_windows_that_cannot_be_heard_are_refused(tmp_path):
    path = tones(tmp_path / "a.wav", [(200, 1)])
    with pytest.raises(UserError, match="longer than the 5 s that pitch hears"):
        answer_windows(Pitch(), path, 6.0)
    with pytest.raises(UserError, match="would leave gaps"):
        answer_windows(Pitch(), path, 1.0, 2.0)


@pytest.fixture(scope="module")
def adapter(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows") / "a"
    methods = [("bottleneck", {"rank": 2})]
    labels = ["yes", "no", "stop"]
    return saved(checkpoints["wav2vec2"], folder, methods, labels, cut=1.0)


def test_what_was_not_heard_is_said(adapter, tmp_path, capsys):
    tone(tmp_path / "long.wav", 300, 12.0)
    (answer,) = load_adapter(adapter).answer_files([tmp_path / "long.wav"])
    assert (answer["duration"], answer["heard"]) == (12.0, 1.0)
    assert main([str(adapter), str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "has 12.0 s, of which the first 1.0 s were heard" in said.err
    assert said.out.count("\n") == 1 and said.out.count("\t") == 2


def test_the_command_line_gives_times_in_every_format(adapter, tmp_path, capsys):
    tone(tmp_path / "long.wav", 300, 3.3)
    arguments = [str(adapter), str(tmp_path), "--window=1", "--device=cpu"]
    main([*arguments, "--json"])
    answers = json.loads(capsys.readouterr().out)
    assert answers[0]["start"] == 0 and answers[-1]["end"] == 3.3
    main([*arguments, "--csv", "--top=2"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 2 * len(answers)
    assert [r["label"] for r in rows[::2]] == [a["label"] for a in answers]
    main([*arguments, "--audacity"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[2] for line in lines] == [a["label"] for a in answers]
    main([*arguments, "--csv", "--threshold=0"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 3 * len(answers)
    with pytest.raises(UserError, match="one of --json, --csv"):
        main([*arguments, "--json", "--csv"])
    with pytest.raises(UserError, match="need --window"):
        main([str(adapter), str(tmp_path), "--hop=1"])


def test_text_comes_with_times(checkpoints, tmp_path):
    labels = ["<blank>", "A", "B", "C"]
    folder = saved(
        checkpoints["wav2vec2"],
        tmp_path / "phones",
        [("bottleneck", {"rank": 2})],
        labels,
        CTCHead,
    )
    tone(tmp_path / "a.wav", 300, 1.3)
    adapters = load_adapter(folder, "phones")
    answers = answer_windows(adapters, tmp_path / "a.wav", 0.5)
    assert answers[0]["start"] == 0 and answers[-1]["end"] == 1.3
    assert all(a["end"] == b["start"] for a, b in pairwise(answers))
    assert all(0 < a["end"] - a["start"] <= 0.5 for a in answers)
    assert any(a["text"] for a in answers)
    with pytest.raises(UserError, match="would repeat words"):
        answer_windows(adapters, tmp_path / "a.wav", 0.5, 0.25)
