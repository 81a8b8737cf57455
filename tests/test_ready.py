"""Features that lie ready train a probe as those that are gathered clip by clip."""

import torch
from conftest import run_here
from safetensors.torch import load_file
from speechbrain.dataio.dataset import DynamicItemDataset
from tiny import epochs_logged

from petl_modules.data.ready import Ready


def test_ready_features_train_the_same_probe(
    checkpoints, class_folders, tmp_path, monkeypatch
):
    states, batches = [], []
    make = Ready.batches

    def counted(self, chosen):
        batches.append(len(chosen))
        return make(self, chosen)

    monkeypatch.setattr(Ready, "batches", counted)
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


def clips_of(target, values):
    rows = {str(i): {"wav": str(i), "value": v} for i, v in enumerate(values)}
    dataset = DynamicItemDataset(rows)
    dataset.add_dynamic_item(target, takes="value", provides="target")
    known = {wav: torch.ones(3, 1, 2) for wav in rows}
    return Ready.of(dataset, known, "target", "cpu")


def test_what_is_spelt_lies_ready_never_also_where_all_is_of_one_length():
    assert clips_of(lambda text: torch.tensor([1, 2]), ["ab", "ab"]) is None
    assert clips_of(lambda text: torch.ones(len(text)), ["ab", "abc"]) is None
    assert clips_of(lambda label: label, [0, 1]).targets.tolist() == [0, 1]
    ready = clips_of(lambda label: torch.eye(2)[label], [0, 1])
    assert ready.targets.tolist() == [[1, 0], [0, 1]]
