"""A linear probe's epochs on features that lie on the device."""

import json

import pytest
import torch
from conftest import run_here
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score, f1_score

from petl_modules.tasks.classification import Classification
from petl_modules.train import brain as brains
from petl_modules.train import closed


@pytest.fixture
def probe(checkpoints, class_folders, tmp_path):
    """Runs a probe in a folder, and gives its folder."""

    def run(name, *more):
        run_here(
            "AudioFolder",
            f"--data_folder={class_folders}",
            f"--source={checkpoints['ast']}",
            f"--output_folder={tmp_path / name}",
            "--method=linear",
            "--number_of_epochs=5",
            "--batch_size=4",
            "--lr=0.01",
            "--max_duration=1.0",
            *more,
        )
        return tmp_path / name / "linear" / "run_seed0"

    return run


def test_it_makes_the_steps_of_speechbrain_s_loop(probe, monkeypatch):
    epochs = []
    own = closed.closed_epoch
    monkeypatch.setattr(
        brains, "closed_epoch", lambda *args: (epochs.append(args[2]), own(*args))
    )
    folders = probe("closed"), probe("loop", "--ckpt_interval_steps=1000")
    assert epochs == [1, 2, 3, 4, 5]
    results = [json.loads((f / "results.json").read_text()) for f in folders]
    tensors = [load_file(f / "adapter.safetensors") for f in folders]
    for key in ("epochs", "steps", "best_epoch"):
        assert results[0][key] == results[1][key]
    for split, metrics in results[0]["metrics"].items():
        assert metrics == pytest.approx(results[1]["metrics"][split], abs=1e-4)
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensor, tensors[1][name], atol=1e-5, rtol=1e-4)


def test_killed_between_two_checkpoints_it_comes_to_the_same(probe, monkeypatch):
    whole = probe("whole")
    own = closed.closed_epoch

    def killed(brain, train_set, epoch):
        if epoch == 4:
            raise KeyboardInterrupt
        own(brain, train_set, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(brains, "closed_epoch", killed)
        patch.setattr(brains.PetlBrain, "_is_worth_keeping", lambda s, e, n: n == 2)
        with pytest.raises(SystemExit):
            probe("killed")
    resumed = probe("killed")
    results = [json.loads((f / "results.json").read_text()) for f in (whole, resumed)]
    assert results[0]["metrics"] == results[1]["metrics"]
    tensors = [load_file(f / "adapter.safetensors") for f in (whole, resumed)]
    assert all(torch.equal(t, tensors[1][name]) for name, t in tensors[0].items())


def test_a_loss_that_is_not_finite_names_its_step(probe, monkeypatch, capsys):
    own = Classification.loss
    monkeypatch.setattr(
        Classification,
        "loss",
        lambda self, logits, batch: own(self, logits, batch) * torch.inf,
    )
    with pytest.raises(SystemExit):
        probe("broken")
    said = capsys.readouterr().err
    assert "not finite" in said and "epoch 1, step 1, with the clips" in said


def test_metrics_are_scikit_learn_s():
    task = Classification(["a", "b", "c", "d"])
    task.start()
    torch.manual_seed(0)
    targets = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0])  # no d
    chances = torch.randn(8, 4).softmax(-1)
    task.rows = list(zip("abcdefgh", targets.tolist(), chances, strict=True))
    found, guesses = task.metrics(), chances.argmax(-1)
    assert found == pytest.approx(
        {
            "accuracy": (targets == guesses).float().mean().item(),
            "macro_f1": f1_score(targets, guesses, average="macro"),
            "weighted_f1": f1_score(targets, guesses, average="weighted"),
            "unweighted_recall": balanced_accuracy_score(targets, guesses),
        }
    )
