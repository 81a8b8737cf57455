"""The search for a learning rate and a size."""

import json
import math
from pathlib import Path

import pytest
from optuna.trial import TrialState

from petl_modules.errors import UserError
from petl_modules.grid import search as searching
from petl_modules.grid.search import main, search
from petl_modules.train.config import load_config
from petl_modules.train.refusals import with_full_paths

SETTINGS = {"method": "lora", "source": "embedded"}


@pytest.fixture
def runs(monkeypatch):
    """Runs that take no time, best at lr=0.01; gives their configs."""
    configs = []

    def run_job(command, folder):
        config = with_full_paths(load_config(command[2], command[3:]))
        configs.append(config)
        if config["lr"] > 0.018:
            return "The loss is not finite."
        folder.mkdir(parents=True, exist_ok=True)
        accuracy = 1 - abs(math.log10(config["lr"] / 0.01)) / 10
        result = dict.fromkeys(("parameters", "seconds", "peak_memory_mib", "epochs"))
        result["metrics"] = {"valid": {"loss": 0.0, "accuracy": accuracy}}
        (folder / "results.json").write_text(json.dumps(result))
        (folder / "hyperparams.yaml").write_text(config.text())
        for name in ("adapter.json", "adapter.safetensors"):
            (folder / name).write_text("something")

    monkeypatch.setattr(searching, "run_job", run_job)
    return configs


def test_the_best_on_the_validation_set_is_found(runs, tmp_path):
    best = search("ESC50", {**SETTINGS, "lr": 0.005}, 12, tmp_path)
    assert len(runs) == 12
    assert runs[0]["lr"] == 0.005  # what is given comes first
    assert all(0.0005 <= config["lr"] <= 0.05 for config in runs)
    assert {config["rank"] for config in runs} <= {2, 4, 8, 16, 32}
    # one fold, and no run looks at the test set
    assert {(config["fold"], config["test"]) for config in runs} == {(1, False)}
    good = [config for config in runs if config["lr"] <= 0.018]
    nearest = min(good, key=lambda config: abs(math.log10(config["lr"] / 0.01)))
    assert best == {"lr": nearest["lr"], "rank": nearest["rank"]}


def test_a_search_goes_on_where_it_stopped(runs, tmp_path, monkeypatch):
    search("ESC50", SETTINGS, 3, tmp_path)
    fake = searching.run_job

    def killed(command, folder):
        runs.append(with_full_paths(load_config(command[2], command[3:])))
        raise KeyboardInterrupt

    monkeypatch.setattr(searching, "run_job", killed)
    with pytest.raises(KeyboardInterrupt):
        search("ESC50", SETTINGS, 5, tmp_path)
    monkeypatch.setattr(searching, "run_job", fake)
    search("ESC50", SETTINGS, 5, tmp_path)
    assert len(runs) == 3 + 1 + 2
    assert runs[3]["output_folder"] == runs[4]["output_folder"]  # taken up
    assert len({config["lr"] for config in runs}) == 5
    search("ESC50", SETTINGS, 5, tmp_path)
    assert len(runs) == 6
    with pytest.raises(UserError, match="holds a search with batch_size=16, now it is"):
        search("ESC50", {**SETTINGS, "batch_size": 8}, 5, tmp_path)


def test_a_size_that_is_given_is_not_searched(runs, tmp_path, capsys):
    given = [f"--{key}={value}" for key, value in SETTINGS.items()]
    main(["ESC50", "--trials=2", f"--output_folder={tmp_path}", "--rank=5", *given])
    assert {config["rank"] for config in runs} == {5}
    assert "Best: --lr=" in capsys.readouterr().out


def test_what_cannot_work_stops_at_once(runs, tmp_path):
    with pytest.raises(UserError, match="first trial failed: The loss is not finite"):
        search("ESC50", {**SETTINGS, "lr": 0.05}, 9, tmp_path)
    assert len(runs) == 1
    with pytest.raises(UserError, match="no option --rnak"):
        search("ESC50", {**SETTINGS, "rnak": 2}, 9, tmp_path)


def test_a_run_that_does_not_see_the_test_set(class_folders, checkpoints, tmp_path):
    settings = {
        "data_folder": str(class_folders),
        "source": str(checkpoints["ast"]),
        "method": "linear",
        "number_of_epochs": 1,
    }
    best = search("AudioFolder", settings, 1, tmp_path)
    assert best == {"lr": 0.001}
    (path,) = Path(tmp_path).glob("**/results.json")
    assert list(json.loads(path.read_text())["metrics"]) == ["valid"]
    rows = (path.parent / "predictions.csv").read_text().splitlines()[1:]
    valid = json.loads((path.parent / "data" / "valid.json").read_text())
    assert {row.split(",")[0] for row in rows} == set(valid)


def test_the_width_that_is_given_is_not_searched(runs, tmp_path):
    search("ESC50", {**SETTINGS, "reduction_rate": 16.0}, 3, tmp_path)
    assert {config["rank"] for config in runs} == {None}
    assert {config["reduction_rate"] for config in runs} == {16.0}


def test_no_search_looks_at_the_test_set(runs, tmp_path):
    with pytest.raises(UserError, match="validation set alone"):
        search("ESC50", {**SETTINGS, "test": True}, 3, tmp_path)
    assert not runs


@pytest.mark.parametrize("where", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("harm", ["torn", "overwritten"])
def test_a_journal_that_is_damaged_is_taken_up_before_that(runs, tmp_path, where, harm):
    search("ESC50", SETTINGS, 4, tmp_path)
    journal = tmp_path / "trials.log"
    content = journal.read_bytes()
    place = int(where * len(content))
    rest = b"" if harm == "torn" else b"\x00" * 40 + content[place + 40 :]
    journal.write_bytes(content[:place] + rest)
    assert search("ESC50", SETTINGS, 4, tmp_path)["lr"] > 0
    for line in journal.read_text().splitlines():
        json.loads(line)


def test_a_journal_torn_anywhere_loses_no_trial_but_the_last(
    runs, tmp_path, monkeypatch
):
    opened, take_up = [], searching.take_up

    def noted(folder, config):
        opened.append(config)
        return take_up(folder, config)

    monkeypatch.setattr(searching, "take_up", noted)
    search("ESC50", SETTINGS, 3, tmp_path)
    config, journal = opened[0], tmp_path / "trials.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) > 10
    for count, line in enumerate(lines):
        before = b"".join(lines[:count])
        ended = before.count(b'"values": [')
        under_way = json.loads(line).get("param_name") == "rank"  # its lr is known
        for cut in (0, 1, len(line) // 2, len(line) - 1):  # before its end, all alike
            journal.write_bytes(before + line[:cut])
            trials = take_up(tmp_path, config).trials
            known = [t for t in trials if t.state == TrialState.COMPLETE]
            known += [t for t in trials if t.state == TrialState.WAITING]
            rates = [searching.params_of(trial)["lr"] for trial in known]
            assert rates[0] == config["lr"] and len(rates) == len(set(rates))
            assert len(rates) >= ended + under_way
