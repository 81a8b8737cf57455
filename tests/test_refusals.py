"""A user's mistake ends in one clear sentence and a non-zero exit, no traceback."""

import json
import re
import shutil

import numpy as np
import pytest
import soundfile
from conftest import ROOT, run, tone

from petl_modules.backbones import load_backbone
from petl_modules.errors import UserError
from petl_modules.tasks.heads import CTCHead
from petl_modules.train import run_recipe
from petl_modules.train.built import refuse_head


@pytest.fixture
def refused(checkpoints, capsys, monkeypatch):
    """Run a recipe's main in this process; gives the sentence that it ends in."""

    def refused(recipe, *arguments):
        import importlib

        monkeypatch.syspath_prepend(ROOT / "recipes" / recipe)
        name = {"ESC50": "esc50", "AudioFolder": "audiofolder"}[recipe]
        prepare = getattr(importlib.import_module(f"{name}_prepare"), f"prepare_{name}")
        hparams = ROOT / "recipes" / recipe / "hparams" / "adapter.yaml"
        argv = [str(hparams), "--number_of_epochs=1", "--noprogressbar=True"]
        if not any(str(a).startswith("--source") for a in arguments):
            argv.append(f"--source={checkpoints['ast']}")
        with pytest.raises(SystemExit) as stop:
            run_recipe(prepare, [*argv, *map(str, arguments)])
        assert stop.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1 and not any("Traceback" in line for line in lines)
        return errors[0]

    return refused


def test_through_a_real_command_line(tmp_path):
    done = run("ESC50", "--data_folder=nowhere", "--rnak=3", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1] == (
        "error: There is no option --rnak. Did you mean --rank?"
    )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Pass --data_folder"),
        (["--data_folder=nowhere"], "nowhere does not exist"),
        (["--method=adapter"], "no method adapter"),
        (["--method=lora", "--site=ffn"], "no use for --site"),
        (["--method=linear", "--rank=3"], "no use for --rank"),
        (["--lr=fast"], "--lr=fast must be a number"),
        (["--batch_size=0"], "batch_size=0 must be a whole number, 1 or more"),
        (["--number_of_epochs=two"], "must be a whole number"),
        (["--methods={}"], "no option --methods"),
        (["--petl={rnak: 3}"], "no option --petl"),
        (["--method_defaults={lora: {rnak: 3}}"], "no option --method_defaults"),
    ],
)
def test_before_anything_is_read(refused, arguments, words):
    assert words in refused("ESC50", *arguments)


@pytest.mark.parametrize("knob", ["--mixup=0.5", "--label_smoothing=0.1"])
def test_what_another_task_trains_with(knob):
    done = run("LibriSpeech/phonemes", "--data_folder=nowhere", knob)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.endswith(f"has no use for {knob.partition('=')[0]}.\n")


def test_weights_and_biases_needs_its_package(refused, monkeypatch):
    assert "must be online or offline" in refused("ESC50", "--wandb=True")
    monkeypatch.setattr("petl_modules.train.refusals.find_spec", lambda name: None)
    assert "pip install wandb" in refused("ESC50", "--wandb=offline")


def test_wrong_settings_of_good_data(refused, esc50_folder, tmp_path):
    given = (f"--data_folder={esc50_folder}", f"--output_folder={tmp_path}")
    for arguments, words in (
        (["--fold=6"], "fold=6"),
        (["--few_shot=1000"], "few_shot=1000"),
        (["--num_classes=5"], "the data has 2 classes"),
        (["--layers=[7]"], "layers=[7]"),
        (["--site=attention"], "must be mhsa"),
        (["--position=before"], "placement=sequential"),
        (["--pooling=prompts"], "pooling=prompts"),
        (["--pooling=max"], "pooling=max"),
        (["--speeds=[3]"], "a list of numbers from 0.5 to 2"),
        (["--source=nobody/nothing"], "No checkpoint"),
        ([f"--source={tmp_path}"], "config.json"),
        (["--method=lora", "--targets=[query]"], "must be a list of q, k"),
        (["--method=prefix", "--prompt_length=3"], "must be even"),
    ):
        assert words in refused("ESC50", *given, *arguments), arguments


def test_a_loss_that_is_not_finite(refused, esc50_folder, tmp_path):
    given = (f"--data_folder={esc50_folder}", f"--output_folder={tmp_path}")
    sentence = refused("ESC50", *given, "--fold=1", "--lr=1e30", "--batch_size=4")
    assert "not finite" in sentence and "lower lr" in sentence
    assert re.search(r"with the clips (\d-\d-A-\d\.wav(, | and 1 more)){3}", sentence)


@pytest.mark.parametrize(
    ("name", "break_it", "words"),
    [
        ("empty.wav", lambda path: path.write_bytes(b""), "cannot be read"),
        ("text.wav", lambda path: path.write_text("no sound"), "cannot be read"),
        (
            "none.wav",
            lambda path: soundfile.write(path, np.zeros(0), 16000),
            "no samples",
        ),
        (
            "nan.wav",
            lambda path: soundfile.write(
                path, np.full(800, np.nan), 16000, subtype="FLOAT"
            ),
            "NaN",
        ),
    ],
)
def test_a_broken_clip_is_named_or_left_out(
    refused, class_folders, checkpoints, tmp_path, name, break_it, words
):
    data = tmp_path / "data"
    shutil.copytree(class_folders, data)
    break_it(data / "low" / name)
    given = (f"--data_folder={data}", f"--output_folder={tmp_path / 'out'}")
    sentence = refused("AudioFolder", *given)
    assert name in sentence and words in sentence and "--skip_broken" in sentence
    assert not list(tmp_path.glob("out/**/train_log.txt"))
    if name == "empty.wav":
        done = run(
            "AudioFolder",
            *given,
            f"--source={checkpoints['ast']}",
            "--number_of_epochs=1",
            "--skip_broken=True",
        )
        assert done.returncode == 0, done.stderr
        assert "Left out" in done.stderr and name in done.stderr
        results = next(tmp_path.glob("out/*/*/results.json"))
        assert json.loads(results.read_text())["left_out"] == 1


def test_data_that_cannot_be_learnt_from(refused, tmp_path):
    for i in range(4):
        tone(tmp_path / "one" / "only" / f"{i}.wav", 300 + i)
    assert "two or more" in refused("AudioFolder", f"--data_folder={tmp_path / 'one'}")
    for part, labels in (("train", "ab"), ("valid", "ab"), ("test", "abc")):
        for label in labels:
            tone(tmp_path / "three" / part / label / "x.wav", 300)
    sentence = refused("AudioFolder", f"--data_folder={tmp_path / 'three'}")
    assert "label c" in sentence and "never seen in training" in sentence
    (tmp_path / "none").mkdir()
    assert "classes" in refused("AudioFolder", f"--data_folder={tmp_path / 'none'}")


def test_a_damaged_results_file_is_not_taken_for_a_result(
    refused, esc50_folder, tmp_path, checkpoints
):
    given = (
        f"--data_folder={esc50_folder}",
        f"--output_folder={tmp_path}",
        "--fold=1",
        "--method=linear",
        f"--source={checkpoints['whisper']}",
    )
    assert run("ESC50", *given, "--number_of_epochs=1").returncode == 0
    results = next(tmp_path.glob("linear/*/results.json"))
    results.write_text(results.read_text()[:40])
    assert "damaged" in refused("ESC50", *given)


def test_what_a_backbone_of_several_sizes_cannot_do(
    refused, esc50_folder, tmp_path, checkpoints
):
    given = (
        f"--data_folder={esc50_folder}",
        f"--output_folder={tmp_path}",
        "--fold=1",
        f"--source={checkpoints['htsat']}",
    )
    for knob in ("--weighted_sum=True", "--layer_adapters=4"):
        assert "of several sizes (16, 32)" in refused("ESC50", *given, knob)
    assert "no room for learned tokens" in refused("ESC50", *given, "--method=prompt")
    with pytest.raises(UserError, match="cannot spell it"):
        refuse_head(load_backbone(checkpoints["htsat"]), CTCHead(32, 5))
