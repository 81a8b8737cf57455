"""Every experiment has a folder of its own, whose name says what is not the default."""

import json

import pytest
from conftest import ROOT, run_here

from petl_modules.grid.rows import tasks_of
from petl_modules.grid.runs import runs_below
from petl_modules.train.config import load_config
from petl_modules.train.labels import LONGEST, folder_name, with_own_folder


def folder(recipe, *arguments):
    """Where the runs of a command line go, below the recipe's folder of results."""
    hparams = ROOT / "recipes" / recipe / "hparams" / "adapter.yaml"
    config = with_own_folder(load_config(hparams, arguments))
    return config["output_folder"].removeprefix("results/")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((), "ESC50"),
        (("--data_folder=/some/ESC-50", "--method=lora", "--seed=3"), "ESC50"),
        (("--method=lora", "--few_shot=2", "--fold=1", "--device=cpu"), "ESC50"),
        (("--method=lora", "--rank=4"), "ESC50/rank=4"),
        (("--rank=4", "--method=lora", "--lr=0.1"), "ESC50/lr=0.1,rank=4"),
        (("--betas=[0.8, 0.9]",), "ESC50/betas=0.8+0.9"),
        (("--source=facebook/hubert-base-ls960",), "ESC50/source=hubert-base-ls960"),
        (("--output_folder=results/mine", "--method=lora", "--rank=4"), "mine"),
    ],
)
def test_what_is_not_the_default_is_in_the_name(arguments, name):
    assert folder("ESC50", *arguments) == name


def test_what_is_given_as_it_is_by_default_is_not_in_the_name():
    hparams = ROOT / "recipes" / "ESC50" / "hparams" / "adapter.yaml"
    lr = load_config(hparams, ["--method=lora"])["lr"]
    assert folder("ESC50", "--method=lora", f"--lr={lr}") == "ESC50"


def test_ones_own_data_is_in_the_name():
    data = "--data_folder=/some/where/birds"
    assert folder("AudioFolder", data) == "AudioFolder/data_folder=birds"


def test_long_names_are_cut_and_stay_apart():
    """A list of thirty words is no folder's name."""
    words = [f"a long word number {n}" for n in range(30)]
    one, other = ({"lr": 0.1, "words": words[:-n]} for n in (1, 2))
    names = {folder_name(one), folder_name(other)}
    assert len(names) == 2 and folder_name(one) in names
    for name in names:
        assert len(name.encode()) <= LONGEST and name.startswith("lr=0.1,words=2")
    wide = folder_name({"words": ["\U0001d11e" * 60, "\n/\0"]})
    assert len(wide.encode()) <= LONGEST and wide.isprintable() and "/" not in wide


def test_two_rates_are_two_runs_and_one_report(
    checkpoints, class_folders, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = [
        f"--data_folder={class_folders}",
        f"--source={checkpoints['ast']}",
        "--method=linear",
        "--number_of_epochs=1",
        "--noprogressbar=True",
    ]
    for lr in ("0.01", "0.02"):
        run_here("AudioFolder", *given, f"--lr={lr}")
    data, source = class_folders.name, checkpoints["ast"].name
    homes = [
        f"results/AudioFolder/data_folder={data},lr={lr},number_of_epochs=1,"
        f"source={source}/linear/run_seed0"
        for lr in ("0.01", "0.02")
    ]
    for home in homes:
        result = json.loads((tmp_path / home / "results.json").read_text())
        assert result["epochs"] == 1
    (task,) = tasks_of(runs_below(tmp_path))
    assert [row.label for row in task.rows] == ["linear lr=0.01", "linear lr=0.02"]
    # what a run leaves runs again where it is
    saved = tmp_path / homes[0] / "hyperparams.yaml"
    before = (tmp_path / homes[0] / "results.json").stat().st_mtime_ns
    run_here("AudioFolder", saved)
    assert (tmp_path / homes[0] / "results.json").stat().st_mtime_ns == before
    assert len(runs_below(tmp_path)) == 2
