"""Features that lie ready train a probe as those that are gathered clip by clip."""

import torch
from conftest import run_here
from safetensors.torch import load_file
from tiny import epochs_logged

from petl_modules.data.ready import Ready


def test_ready_features_train_the_same_probe(
    checkpoints, class_folders, tmp_path, monkeypatch
):
    states, batches = [], []
    make = Ready.batch

    def counted(self, chosen):
        batches.append(len(chosen))
        return make(self, chosen)

    monkeypatch.setattr(Ready, "batch", counted)
    for name in ("ready", "gathered"):
        if name == "gathered":
            assert batches
            monkeypatch.setattr(Ready, "of", lambda *args: None)
            batches.clear()
        run_here(
            "AudioFolder",
            f"--data_folder={class_folders}",
            f"--source={checkpoints['ast']}",
            f"--output_folder={tmp_path / name}",
            "--method=linear",
            "--number_of_epochs=3",
            "--batch_size=4",
            "--max_duration=1.0",
            "--noprogressbar=True",
        )
        (path,) = (tmp_path / name).rglob("adapter.safetensors")
        log = epochs_logged(path.parent)
        states.append((load_file(path), log))
    assert not batches
    (ready, log), (gathered, other) = states
    assert log == other
    assert all(torch.equal(t, gathered[name]) for name, t in ready.items())
