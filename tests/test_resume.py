"""Going on after the last epoch, and what is kept of a run that is done."""

import dataclasses
import json
import os
import re
import shutil
import time
from contextlib import nullcontext
from datetime import timedelta

import pytest
import torch
from conftest import limited, run, run_here, together
from safetensors.torch import load_file
from tiny import epochs_logged
from torch import nn

from petl_modules.errors import UserError
from petl_modules.train import checkpoints
from petl_modules.train.checkpoints import Belongs, Counter, WholeCheckpointer


@pytest.fixture(scope="module")
def arguments(checkpoints, class_folders):
    """Of a short run whose best epoch need not be its last."""
    return (
        f"--data_folder={class_folders}",
        f"--source={checkpoints['ast']}",
        "--method=bottleneck",
        "--number_of_epochs=3",
        "--batch_size=8",
        "--max_duration=1.0",
        "--lr=0.05",
    )


def test_killed_after_the_last_epoch(arguments, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # stopped where the results would be written: a folder is in the way
    folder = killed / "bottleneck" / "run_seed0"
    (folder / "predictions.csv").mkdir(parents=True)
    assert run("AudioFolder", *arguments, f"--output_folder={killed}").returncode == 2
    assert list(folder.glob("checkpoints/*")) and not (folder / "results.json").exists()
    shutil.rmtree(folder / "predictions.csv")
    results, tensors = [], []
    for output in (whole, killed):
        done = run("AudioFolder", *arguments, f"--output_folder={output}")
        assert done.returncode == 0, done.stderr
        folder = output / "bottleneck" / "run_seed0"
        assert not list(folder.glob("**/checkpoints"))
        results.append(json.loads((folder / "results.json").read_text()))
        tensors.append(load_file(folder / "adapter.safetensors"))
    assert len(epochs_logged(folder)) == 3
    for key in ("metrics", "epochs", "best_epoch"):
        assert results[0][key] == results[1][key]
    assert results[0]["epochs"] == 3 >= results[0]["best_epoch"]
    assert all(tensors[0][n].equal(tensors[1][n]) for n in tensors[0])


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """The tensors of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run_here("AudioFolder", *arguments, f"--output_folder={folder}")
    return load_file(folder / "bottleneck" / "run_seed0" / "adapter.safetensors")


@pytest.mark.parametrize(
    ("harm", "said"),
    [("full", "cannot be writ"), ("deleted", "was deleted while it was in use")],
)
def test_a_disk_that_takes_no_more_ends_a_run_in_a_sentence_and_it_goes_on(
    arguments, whole, tmp_path, monkeypatch, capsys, harm, said
):
    arguments = (*arguments, f"--output_folder={tmp_path / 'out'}")
    folder, saved = tmp_path / "out" / "bottleneck" / "run_seed0", []
    save = WholeCheckpointer.save_checkpoint

    def disturbed(*args, **kwargs):
        saved.append(1)
        now = len(saved) == 2
        with limited(300) if now and harm == "full" else nullcontext():
            checkpoint = save(*args, **kwargs)
        if now and harm == "deleted":
            shutil.rmtree(tmp_path / "out")
        return checkpoint

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(WholeCheckpointer, "save_checkpoint", disturbed)
        run_here("AudioFolder", *arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error.splitlines()[-1], error
    assert "Traceback" not in error
    run_here("AudioFolder", *arguments)
    again = load_file(folder / "adapter.safetensors")
    assert all(again[name].equal(whole[name]) for name in whole)
    assert not list(folder.rglob(".*partial*")) + list(folder.rglob("checkpoints"))


def test_the_weights_of_the_best_epochs_are_averaged(arguments, tmp_path):
    folder = tmp_path / "bottleneck" / "run_seed0"
    (folder / "predictions.csv").mkdir(parents=True)  # keeps the checkpoints there
    arguments = (*arguments, "--average=2", f"--output_folder={tmp_path}")
    assert run("AudioFolder", *arguments).returncode == 2
    checkpoints = {
        float(re.search("error: (.*)", (path / "CKPT.yaml").read_text())[1]): path
        for path in (folder / "checkpoints").glob("CKPT*")
    }
    best = sorted(checkpoints)[:2]
    states = [load_file(checkpoints[error] / "task_model.ckpt") for error in best]
    shutil.rmtree(folder / "predictions.csv")
    assert run("AudioFolder", *arguments).returncode == 0
    adapter = load_file(folder / "adapter.safetensors")
    assert adapter and adapter.keys() <= states[0].keys()
    for name, tensor in adapter.items():
        torch.testing.assert_close(tensor, (states[0][name] + states[1][name]) / 2)
    assert any(not adapter[name].equal(states[0][name]) for name in adapter)


def test_prompts_can_be_pooled_after_a_head_start(arguments, tmp_path):
    arguments = [a.replace("bottleneck", "prompt") for a in arguments]
    start = (
        "--pooling=prompts",
        "--head_start_epochs=2",
        f"--output_folder={tmp_path}",
    )
    done = run("AudioFolder", *arguments, *start)
    assert done.returncode == 0, done.stderr
    assert "torchvision" not in done.stderr


class Dies(nn.Module):
    """Something whose saving is broken off."""

    def state_dict(self, *args, **kwargs):
        raise KeyboardInterrupt


def test_a_checkpoint_that_was_broken_off_is_not_taken_up(tmp_path):
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    checkpointer = WholeCheckpointer(tmp_path, {"layer": layer})
    whole = checkpointer.save_checkpoint(meta={"error": 0.5})
    nn.init.zeros_(layer.weight)
    checkpointer.add_recoverable("late", Dies())
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_checkpoint(meta={"error": 0.1})
    assert len(list(tmp_path.glob("CKPT*"))) == 2

    again = WholeCheckpointer(tmp_path, {"layer": layer})
    assert again.recover_if_possible().path == whole.path
    assert again.recover_if_possible(min_key="error").path == whole.path
    assert torch.equal(layer.weight, before)


def save_with_another(rank, folder):
    """One of two processes that save; the first is slow to mark what it saved."""
    mark = checkpoints.mark
    checkpoints.mark = lambda *args: (time.sleep(1), mark(*args))
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    torch.distributed.init_process_group(
        "gloo",
        f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    checkpointer = WholeCheckpointer(folder, {"layer": nn.Linear(2, 2)})
    for errors in ([0.5], [0.4, 0.5], [0.3, 0.4]):  # always two, if one is damaged
        checkpointer.save_and_keep_only(meta={"error": errors[0]}, min_keys=["error"])
        found = checkpointer.list_checkpoints()
        assert sorted(checkpoint.meta["error"] for checkpoint in found) == errors
    torch.distributed.destroy_process_group()


def test_processes_agree_on_what_is_saved(tmp_path):
    together(save_with_another, [(rank, tmp_path) for rank in range(2)])


@pytest.fixture
def saved(tmp_path):
    """Three checkpoints of a layer whose weight is their number, and the checkpointer
    of a process that goes on from them."""
    layer, counter = nn.Linear(1, 1), Counter(9, patience=2)
    own = Belongs(
        {"lr": 0.1, "head_start_lr": 0.1},
        {"train": "a", "valid": "b", "test": "c"},
        "weights",
    )
    parts = {"layer": layer, "counter": counter}
    folder = tmp_path / "run" / "checkpoints"
    saver = WholeCheckpointer(folder, dict(parts), belongs=own)
    for error in (0.5, 0.7, 0.6):
        counter.current += 1
        counter.update_metric(error)
        nn.init.constant_(layer.weight, counter.current)
        saver.save_and_keep_only(meta={"error": error}, min_keys=["error"])
        time.sleep(0.01)

    def go_on(belongs=own):
        nn.init.zeros_(layer.weight)
        counter = Counter(9, patience=2)  # of a process that knows nothing
        found = {"layer": layer, "counter": counter}
        again = WholeCheckpointer(folder, found, belongs=belongs)
        again.make_ready()
        again.recover_if_possible()
        return int(layer.weight), counter

    def paths():
        return sorted(folder.glob("CKPT*"), key=lambda path: path.stat().st_mtime_ns)

    return go_on, paths


def test_patience_is_taken_up(saved):
    go_on, _ = saved
    number, counter = go_on()
    assert number == 3 and counter.current == 3
    assert (counter.best_limit, counter.best_score) == (1, 0.5)
    assert counter.should_stop


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["layer.ckpt", "counter.ckpt", "CKPT.yaml", "WHOLE"])
def test_a_flipped_bit_makes_training_go_on_from_the_checkpoint_before(saved, name):
    go_on, paths = saved
    path = paths()[-1] / name
    flip_a_bit(path)
    assert go_on()[0] < 3
    assert not path.exists()


def test_what_comes_after_a_lost_checkpoint_is_trained_again(saved):
    go_on, paths = saved
    flip_a_bit(paths()[0] / "layer.ckpt")  # of the best so far
    assert go_on()[0] == 0 and not paths()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"settings": {"lr": 0.2}}, "lr=0.1, now it is 0.2"),
        (
            {"settings": {"lr": 0.2, "head_start_lr": 0.2}},
            "head_start_lr=0.1, now it is 0.2",
        ),
        ({"manifests": {"train": "a", "valid": "b", "test": "x"}}, "The test data"),
        ({"backbone": "others"}, "backbone's weights have changed"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(saved, changed, words):
    own = Belongs(
        {"lr": 0.1, "head_start_lr": 0.1},
        {"train": "a", "valid": "b", "test": "c"},
        "weights",
    )
    with pytest.raises(UserError, match=words):
        saved[0](dataclasses.replace(own, **changed))
    assert saved[0](own)[0] == 3
