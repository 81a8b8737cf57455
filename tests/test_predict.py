"""Labels for recordings: equal to the training run's, whatever else is in the batch."""

import csv
import json
import shutil
import subprocess
import sys

import pytest
from conftest import run, tone

from petl_modules.console import refusing
from petl_modules.errors import UserError
from petl_modules.use.inference import load_adapter
from petl_modules.use.predict import main as predict_main
from petl_modules.use.predict import recordings


@pytest.fixture(scope="module")
def adapter(checkpoints, class_folders, tmp_path_factory):
    """A trained run's folder."""
    output = tmp_path_factory.mktemp("output")
    done = run(
        "AudioFolder",
        f"--data_folder={class_folders}",
        f"--source={checkpoints['whisper']}",
        f"--output_folder={output}",
        "--method=lora",
        "--number_of_epochs=2",
    )
    assert done.returncode == 0, done.stderr
    return output / "lora" / "run_seed0"


def predict(*arguments):
    command = [sys.executable, "-m", "petl_modules.predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_answers_are_those_of_the_runs_test(adapter, class_folders):
    classifier = load_adapter(adapter)
    answers = classifier.answer_files(recordings(class_folders), batch_size=7)
    by_name = {answer["file"]: answer for answer in answers}
    with open(adapter / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(answers) == 30 and len(rows) == 6
    for row in rows:
        answer = by_name[str(class_folders / row["id"])]
        assert answer["label"] == row["prediction"]
        assert answer["probability"] == pytest.approx(
            float(row["probability"]), abs=2e-4
        )
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        alone = classifier.classify_file(answer["file"])
        assert alone["probability"] == pytest.approx(answer["probability"], abs=1e-4)


def test_the_command_line_answers_around_broken_files(adapter, class_folders, tmp_path):
    shutil.copy(class_folders / "low" / "low0.wav", tmp_path / "a.wav")
    (tmp_path / "b.wav").write_text("no sound")
    tone(tmp_path / "long.wav", 300, 3.0)  # longer than the position table
    (tmp_path / "notes.txt").write_text("no sound")
    (tmp_path / "empty").mkdir()
    done = predict(adapter, tmp_path / "empty", tmp_path, "--json")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    first, broken, long, empty = json.loads(done.stdout)
    assert "no recordings in the folder" in empty["error"]
    assert first["label"] in {"low", "middle", "high"}
    assert "b.wav cannot be read" in broken["error"]
    assert "long.wav" in long["error"] and "max_duration" in long["error"]
    assert done.stderr.count("error: ") == 3
    done = predict(adapter, tmp_path / "a.wav")
    assert done.returncode == 0 and first["label"] in done.stdout


def test_what_cannot_be_answered_at_all_is_said(adapter, tmp_path):
    with pytest.raises(UserError, match="There is no device=nonsense here"):
        predict_main([str(adapter), "a.wav", "--device=nonsense"])
    done = predict(tmp_path, "a.wav")
    assert done.returncode == 2 and "no adapter at" in done.stderr
    (answer,) = load_adapter(adapter).answer_files(["gone.wav"])
    assert "gone.wav is missing" in answer["error"]


def test_answers_that_a_full_disk_does_not_take_end_in_one_sentence(
    adapter, class_folders, monkeypatch, capsys
):
    arguments = [str(adapter), str(class_folders / "low"), "--json"]
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as end, refusing():
            predict_main(arguments)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "error: What was to be written cannot be: No space left on device."
    assert end.value.code == 2
