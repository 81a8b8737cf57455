"""Recipes through their command lines: what a run leaves, resumes, and repeats."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
import torch
from conftest import command, run, run_here
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import epochs_logged

from petl_modules.data import read_clip
from petl_modules.use.adapter_file import read_adapter

QUICK = ("--number_of_epochs=2", "--batch_size=8", "--max_duration=1.0")


@pytest.fixture(scope="module")
def finished_run(checkpoints, class_folders, tmp_path_factory):
    """One run of AudioFolder: its process, folder and arguments."""
    output = tmp_path_factory.mktemp("output")
    arguments = (
        f"--data_folder={class_folders}",
        f"--source={checkpoints['ast']}",
        f"--output_folder={output}",
        "--method=conformer",
        "--rank=4",
        *QUICK,
    )
    done = run("AudioFolder", *arguments)
    assert done.returncode == 0, done.stderr
    return done, output / "conformer" / "run_seed0", arguments


def test_a_run_says_what_trains_and_how_it_ended(finished_run):
    done, _, _ = finished_run
    assert "What trains with method=conformer" in done.stdout
    assert "test  loss" in done.stderr and "accuracy" in done.stderr
    lines = done.stderr.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert epochs, done.stderr
    assert re.match(
        r"epoch 1 of 2: loss .*, valid loss .* \(best\), .* left", epochs[0]
    )
    assert len(epochs) == 2 and "it/s" not in done.stderr and len(lines) < 12
    last = lines[-1]
    assert "confusion_matrix.png" in last and "adapter.safetensors" in last
    assert "Traceback" not in done.stderr


def test_a_run_leaves_everything(finished_run):
    _, folder, _ = finished_run
    left = {path.name for path in folder.iterdir()}
    assert left >= {
        "hyperparams.yaml",
        "train_log.txt",
        "tensorboard",
        "results.json",
        "adapter.safetensors",
        "adapter.json",
        "confusion_matrix.png",
        "predictions.csv",
    }
    result = json.loads((folder / "results.json").read_text())
    assert set(result) >= {
        "recipe",
        "dataset",
        "task",
        "method",
        "backbone",
        "fold",
        "seed",
        "metrics",
        "parameters",
        "seconds",
        "peak_memory_mib",
        "epochs",
        "versions",
        "commit",
    }
    assert set(result["parameters"]) == {"petl", "norms", "head", "backbone"}
    assert 0 <= result["metrics"]["test"]["accuracy"] <= 1
    assert result["epochs"] == 2 and result["seconds"] > 0
    assert result["clips"] == {"train": 18, "valid": 6, "test": 6}
    log = (folder / "train_log.txt").read_text().splitlines()
    assert len(log) == 5 and log[2:4] == epochs_logged(folder)
    assert log[1].startswith("head start: valid loss: ") and result["head_start"]
    assert log[0].startswith("settings: ") and "method: conformer, " in log[0]
    assert log[-1].startswith(f"result of epoch {result['best_epoch']}: ")
    assert (folder / "confusion_matrix.png").stat().st_size > 5000
    events = EventAccumulator(str(folder / "tensorboard"))
    tags = events.Reload().Tags()
    assert {"confusion matrix"} <= set(tags["images"])
    assert {"loss/train", "accuracy/valid", "result/test accuracy"} <= {
        *tags["scalars"]
    }
    assert [event.step for event in events.Scalars("accuracy/valid")] == [1, 2]


def test_the_adapter_file_repeats_the_tests_predictions(finished_run):
    _, folder, _ = finished_run
    adapter = read_adapter(folder)
    rows = (folder / "predictions.csv").read_text().splitlines()[1:]
    test = json.loads((folder / "data" / "test.json").read_text())
    assert len(rows) == len(test) == 6
    for row in rows:
        key, _, prediction, probability = row.split(",")
        clip = read_clip(test[key]["wav"], 16000)[None, :16000]
        guess = adapter.head(adapter.model(clip)).detach().softmax(-1)[0]
        assert adapter.info["labels"][int(guess.argmax())] == prediction
        assert float(guess.max()) == pytest.approx(float(probability), abs=2e-4)


def test_a_finished_run_is_not_run_again(finished_run):
    _, folder, arguments = finished_run
    before = (folder / "results.json").stat().st_mtime_ns
    done = run("AudioFolder", *arguments)
    assert done.returncode == 0 and "Done already" in done.stderr
    assert (folder / "results.json").stat().st_mtime_ns == before


def test_other_settings_do_not_pass_for_a_finished_run(finished_run):
    _, _, arguments = finished_run
    done = run("AudioFolder", *arguments, "--lr=0.1")
    assert done.returncode == 2
    assert "lr=" in done.stderr and "--output_folder" in done.stderr


def test_the_saved_hparams_run_the_same_experiment(finished_run, tmp_path):
    _, folder, _ = finished_run
    saved = folder / "hyperparams.yaml"
    done = run("AudioFolder", saved, f"--output_folder={tmp_path}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = tmp_path / "conformer" / "run_seed0"
    assert_same_run(folder, again)


def assert_same_run(one, other):
    """Equal test metrics, and bit-equal adapter tensors."""
    results = [json.loads((f / "results.json").read_text()) for f in (one, other)]
    assert results[0]["metrics"] == results[1]["metrics"]
    tensors = [load_file(f / "adapter.safetensors") for f in (one, other)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][n], tensors[1][n]) for n in tensors[0])


@pytest.mark.parametrize(
    ("method", "checkpoint"),
    [("conformer", ()), ("prompt", ("--ckpt_interval_steps=3",))],
    ids=["from the epoch before", "from within the epoch"],
)
def test_a_killed_run_ends_as_if_it_had_not_been(
    checkpoints, esc50_folder, tmp_path, method, checkpoint
):
    arguments = (
        f"--data_folder={esc50_folder}",
        f"--source={checkpoints['whisper']}",
        f"--method={method}",
        "--fold=2",
        "--batch_size=2",
        "--number_of_epochs=6",
        "--head_start_epochs=2",
        "--spec_augment_freq=6",
        "--grad_accumulation_factor=2",
        "--dropout=0.1" if method == "conformer" else "--prompt_dropout=0.1",
        *checkpoint,
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run("ESC50", *arguments, f"--output_folder={whole}")
    assert done.returncode == 0, done.stderr
    # two epochs are logged, and the third has begun: killed in the middle of it
    home = killed / method / "fold2_seed0"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command("ESC50", *arguments, f"--output_folder={killed}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    deadline = time.monotonic() + 200
    while len(epochs_logged(home)) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (home / "results.json").exists()
    done = run("ESC50", *arguments, f"--output_folder={killed}")
    assert done.returncode == 0, done.stderr
    folder = f"{method}/fold2_seed0"
    assert_same_run(whole / folder, killed / folder)
    assert len(epochs_logged(home)) >= 6


def test_folds_end_in_a_summary(checkpoints, esc50_folder, tmp_path):
    arguments = (
        f"--data_folder={esc50_folder}",
        f"--source={checkpoints['wav2vec2']}",
        f"--output_folder={tmp_path}",
        "--method=linear",
        *QUICK,
    )
    done = run("ESC50", *arguments, "--fold=3")
    assert done.returncode == 0, done.stderr
    done = run("ESC50", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Done already") == 1
    assert "mean" in done.stdout and "std" in done.stdout
    summary = json.loads(
        (tmp_path / "linear" / "all_folds_seed0_summary.json").read_text()
    )
    results = [
        json.loads(
            (tmp_path / "linear" / f"fold{k}_seed0" / "results.json").read_text()
        )
        for k in range(1, 6)
    ]
    accuracies = [result["metrics"]["test"]["accuracy"] for result in results]
    assert summary["folds"] == [1, 2, 3, 4, 5]
    assert summary["test"]["accuracy"]["mean"] == pytest.approx(sum(accuracies) / 5)


def test_cached_features_give_the_same_metrics(checkpoints, esc50_folder, tmp_path):
    metrics = []
    for cache in (True, False):
        done = run(
            "ESC50",
            f"--data_folder={esc50_folder}",
            f"--source={checkpoints['whisper']}",
            f"--output_folder={tmp_path / str(cache)}",
            f"--feature_cache={cache}",
            "--method=linear",
            "--fold=1",
            *QUICK,
        )
        assert done.returncode == 0, done.stderr
        folder = tmp_path / str(cache) / "linear" / "fold1_seed0"
        metrics.append(json.loads((folder / "results.json").read_text())["metrics"])
    for split in ("valid", "test"):
        assert metrics[0][split] == pytest.approx(metrics[1][split], abs=1e-4)


@pytest.mark.parametrize(
    "knobs",
    [
        ("--method=full", "--precision=bf16", "--weighted_sum=True"),
        ("--method=lora", "--few_shot=2", "--warmup=0.5", "--patience=1"),
        ("--method=soft_moa", "--pooling=cls", "--projector_size=8"),
        ("--speeds=[0.9, 1.1]", "--mixup=0.3", "--time_shift", "--head_start_epochs=1"),
    ],
)
def test_knobs_of_training_run(checkpoints, class_folders, tmp_path, knobs):
    done = run(
        "AudioFolder",
        f"--data_folder={class_folders}",
        f"--source={checkpoints['ast']}",
        f"--output_folder={tmp_path}",
        *QUICK,
        *knobs,
    )
    assert done.returncode == 0, done.stderr


def test_two_processes_run_a_recipe_as_one(checkpoints, class_folders, tmp_path):
    arguments = (
        f"--data_folder={class_folders}",
        f"--source={checkpoints['xlsr']}",
        "--method=conformer",  # has batch statistics
        "--device=cpu",
        "--number_of_epochs=2",
        "--batch_size=5",  # parted as 3 and 2, the last batch of 3 as 2 and 1
        "--head_start_epochs=2",
        "--eps=0.001",  # Adam would make much of the last digit of a gradient
    )
    run_here("AudioFolder", *arguments, f"--output_folder={tmp_path / '1'}")
    together = ("--processes=2", "--distributed_backend=gloo")
    done = run(
        "AudioFolder", *arguments, *together, f"--output_folder={tmp_path / '2'}"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("test  loss") == 1
    results, tensors = [], []
    for output in (tmp_path / "1", tmp_path / "2"):
        folder = output / "conformer" / "run_seed0"
        results.append(json.loads((folder / "results.json").read_text()))
        tensors.append(load_file(folder / "adapter.safetensors"))
        assert len(epochs_logged(folder)) == results[-1]["epochs"] == 2
    for split in ("valid", "test"):
        one, two = (result["metrics"][split] for result in results)
        assert one == pytest.approx(two, abs=1e-4)
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], tensor, atol=1e-4, rtol=1e-3)


def test_a_head_start_gives_the_probes_head(checkpoints, class_folders, tmp_path):
    arguments = (
        f"--data_folder={class_folders}",
        f"--source={checkpoints['ast']}",
        "--lr=1e-12",
        *QUICK,
    )
    starts = {"0": (), "40": ("--head_start_epochs=40", "--head_start_lr=0.01")}
    accuracy = {}
    for name, start in starts.items():
        output = tmp_path / name
        done = run("AudioFolder", *arguments, *start, f"--output_folder={output}")
        assert done.returncode == 0, done.stderr
        results = json.loads(next(output.glob("*/*/results.json")).read_text())
        accuracy[name] = results["metrics"]["valid"]["loss"]
    assert "Head start: a linear probe with valid accuracy" in done.stderr
    # with no learning to speak of, what is better is the probe's
    assert accuracy["40"] < 0.8 * accuracy["0"]


def test_a_head_start_that_counts_is_no_loss(checkpoints, class_folders, tmp_path):
    done = run(
        "AudioFolder",
        f"--data_folder={class_folders}",
        f"--source={checkpoints['ast']}",
        f"--output_folder={tmp_path}",
        "--method=bottleneck",
        "--head_start_epochs=40",
        "--head_start_lr=0.01",
        "--head_start_counts",
        "--lr=10",  # breaks what was learnt
        "--number_of_epochs=2",
        "--batch_size=8",
        "--max_duration=1.0",
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "bottleneck" / "run_seed0"
    results = json.loads((folder / "results.json").read_text())
    reached = re.search(r"probe with valid accuracy (0\.\d+|1\.0+)", done.stderr)[1]
    log = "\n".join(epochs_logged(folder))
    losses = re.findall("valid loss: (.*?),", log)
    assert (results["best_epoch"], results["epochs"], len(losses)) == (0, 2, 3)
    assert results["metrics"]["valid"]["accuracy"] == pytest.approx(float(reached))
    assert float(losses[0]) < min(map(float, losses[1:]))
