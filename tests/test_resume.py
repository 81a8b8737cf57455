"""Going on after the last epoch, and what is kept of a run that is done."""

import json
import os
import re
import shutil
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from conftest import run
from safetensors.torch import load_file
from torch import nn

from petl_modules.train.checkpoints import WholeCheckpointer


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
    assert run("AudioFolder", *arguments, f"--output_folder={killed}").returncode == 1
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
    assert len((folder / "train_log.txt").read_text().splitlines()) == 3
    for key in ("metrics", "epochs", "best_epoch"):
        assert results[0][key] == results[1][key]
    assert results[0]["epochs"] == 3 >= results[0]["best_epoch"]
    assert all(tensors[0][n].equal(tensors[1][n]) for n in tensors[0])


def test_the_weights_of_the_best_epochs_are_averaged(arguments, tmp_path):
    folder = tmp_path / "bottleneck" / "run_seed0"
    (folder / "predictions.csv").mkdir(parents=True)  # keeps the checkpoints there
    arguments = (*arguments, "--average=2", f"--output_folder={tmp_path}")
    assert run("AudioFolder", *arguments).returncode == 1
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
    touch = Path.touch
    Path.touch = lambda path: (time.sleep(1), touch(path))
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    torch.distributed.init_process_group(
        "gloo",
        f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    checkpointer = WholeCheckpointer(folder, {"layer": nn.Linear(2, 2)})
    for error in (0.5, 0.4):
        checkpointer.save_and_keep_only(meta={"error": error}, min_keys=["error"])
        found = checkpointer.list_checkpoints()
        assert [checkpoint.meta["error"] for checkpoint in found] == [error]
    torch.distributed.destroy_process_group()


def test_processes_agree_on_what_is_saved(tmp_path):
    torch.multiprocessing.spawn(save_with_another, (str(tmp_path),), nprocs=2)
