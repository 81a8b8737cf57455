"""The table of finished runs."""

import json
import subprocess
import sys

import pytest

from petl_modules.errors import UserError
from petl_modules.report import report


def write(folder, method, fold, accuracy, few_shot=None):
    """One run's results.json."""
    path = folder / method / f"fold{fold}_{few_shot}" / "results.json"
    path.parent.mkdir(parents=True)
    result = {
        "recipe": "ESC50",
        "task": "classification",
        "backbone": "/some/where/ast",
        "few_shot": few_shot,
        "method": method,
        "metrics": {
            "valid": {"accuracy": accuracy - 0.1},
            "test": {"accuracy": accuracy},
        },
        "parameters": {"petl": 1000, "norms": 20, "head": 3, "backbone": 9999},
        "seconds": 1.4,
    }
    path.write_text(json.dumps(result))
    return path


def test_means_and_deviations_over_the_runs(tmp_path):
    for fold, accuracy in ((1, 0.5), (2, 0.7)):
        write(tmp_path, "lora", fold, accuracy)
    write(tmp_path, "bitfit", 1, 0.25)
    assert report(tmp_path).splitlines() == [
        "| method | runs | valid accuracy | test accuracy | trained | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
        "| bitfit | 1 | 0.150 | 0.250 | 1,023 | 1 |",
        "| lora | 2 | 0.500 ± 0.141 | 0.600 ± 0.141 | 1,023 | 3 |",
    ]


def test_what_differs_gets_a_column(tmp_path):
    write(tmp_path, "lora", 1, 0.5, few_shot=4)
    write(tmp_path, "lora", 1, 0.7)
    first, _, *rows = report(tmp_path).splitlines()
    assert first.startswith("| few-shot | runs |")
    assert [row.split(" | ")[0] for row in rows] == ["| 4", "| None"]


def test_what_cannot_be_reported_is_said(tmp_path):
    with pytest.raises(UserError, match=r"no results\.json"):
        report(tmp_path)
    path = write(tmp_path, "lora", 1, 0.5)
    with pytest.raises(UserError, match=r"no metric recall .*, but accuracy"):
        report(tmp_path, "recall")
    path.write_text(path.read_text()[:40])
    command = [sys.executable, "-m", "petl_modules.report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "lora/fold1_None/results.json is damaged" in done.stderr
