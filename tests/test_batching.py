"""Batches of like lengths: what they hold, and a run that is killed in an epoch."""

import json
import os
import signal
import subprocess
import time
from types import SimpleNamespace

import layouts
import pytest
from conftest import command, run
from safetensors.torch import load_file
from speechbrain.dataio.dataset import DynamicItemDataset

from petl_modules.backbones import load_backbone
from petl_modules.data.datasets import batching, refuse_long
from petl_modules.data.loading import Loading
from petl_modules.errors import UserError
from petl_modules.tasks import Task

SECONDS = [1.0, 1.1, 5.0, 5.2, 30.0, 1.2, 4.9, 9.0, 1.3, 2.0]


def batches_of(epochs=(1,), cuts=False, shuffle=True, **settings):
    """The batches of these epochs, as lists of lengths."""
    entries = {str(i): {"duration": s} for i, s in enumerate(SECONDS)}
    given = {"batch_size": 4, "max_batch_seconds": 12.0, "max_duration": 20.0}
    loading = Loading.of({**given, **settings})
    seed, task = settings.get("seed", 0), Task()
    task.cuts = cuts
    loader = batching(loading, DynamicItemDataset(entries), task, seed, shuffle)
    found = []
    for epoch in epochs:
        loader["batch_sampler"].set_epoch(epoch)
        found.append([[SECONDS[i] for i in b] for b in loader["batch_sampler"]])
    return found


def test_a_batch_has_so_many_seconds_and_clips_at_most():
    (batches,) = batches_of()
    assert sorted(s for batch in batches for s in batch) == sorted(SECONDS)
    for batch in batches:
        assert len(batch) <= 4
        assert len(batch) * max(batch) <= 12.0 or len(batch) == 1
    assert max(map(len, batches)) > 1
    assert all(len(batch) <= 2 for batch in batches_of(batch_size=2)[0])


def test_order_hangs_on_seed_and_epoch_and_the_number_of_batches_on_neither():
    first, second = batches_of((1, 2))
    assert first != second and len(first) == len(second)
    assert batches_of((2,)) == [second] and batches_of((1, 2), seed=1) != [
        first,
        second,
    ]
    (still,) = batches_of(shuffle=False)
    assert max(still[0]) == 30.0


def test_without_seconds_batches_are_of_clips():
    first, second = batches_of((1, 2), max_batch_seconds=None)
    assert list(map(len, first)) == [4, 4, 2] and first != second
    assert sorted(s for batch in first for s in batch) == sorted(SECONDS)


def test_a_run_that_is_killed_in_an_epoch_ends_the_same(checkpoints, tmp_path):
    layouts.librispeech(tmp_path)
    arguments = (
        f"--data_folder={tmp_path}",
        f"--source={checkpoints['whisper']}",
        "--method=bottleneck",
        "--skip_broken=True",
        "--number_of_epochs=3",
        "--max_batch_seconds=3",
        "--ckpt_interval_steps=2",
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert (
        run("LibriSpeech/ASR", *arguments, f"--output_folder={whole}").returncode == 0
    )
    line = command("LibriSpeech/ASR", *arguments, f"--output_folder={killed}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL)
    folder = killed / "bottleneck" / "run_seed0"
    deadline = time.monotonic() + 600
    while not list(folder.glob("checkpoints/*/WHOLE")) and time.monotonic() < deadline:
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert not (folder / "results.json").exists()
    done = run("LibriSpeech/ASR", *arguments, f"--output_folder={killed}")
    assert done.returncode == 0, done.stderr
    ends = [whole / "bottleneck" / "run_seed0", folder]
    tensors = [load_file(end / "adapter.safetensors") for end in ends]
    assert all(tensors[0][n].equal(tensors[1][n]) for n in tensors[0])
    results = [json.loads((end / "results.json").read_text()) for end in ends]
    assert results[0]["metrics"]["test"] == pytest.approx(results[1]["metrics"]["test"])


@pytest.mark.parametrize("family", ["ast", "whisper", "htsat"])
def test_a_clip_without_positions_is_found_before_an_epoch(checkpoints, family):
    model = SimpleNamespace(backbone=load_backbone(checkpoints[family]))
    room = model.backbone.capacity() / model.backbone.sample_rate
    short, long = ({"x": {"duration": room + more}} for more in (0.0, 0.2))
    refuse_long(DynamicItemDataset(short), None, model, "test")
    refuse_long(DynamicItemDataset(long), room, model, "test")
    with pytest.raises(UserError, match=r"test clip x is .* --max_duration=") as said:
        refuse_long(DynamicItemDataset(long), None, model, "test")
    most = float(str(said.value).rstrip(".").split("=")[-1])
    refuse_long(DynamicItemDataset(long), most, model, "test")
