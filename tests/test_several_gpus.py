"""What several processes and jobs do with GPUs, as far as it shows where there are
none."""

import pytest
import torch
from conftest import ROOT

import petl_modules.errors
from petl_modules.errors import UserError
from petl_modules.grid.jobs import Job
from petl_modules.grid.schedule import devices
from petl_modules.train.config import load_config
from petl_modules.train.refusals import refuse_device

ESC50 = ROOT / "recipes" / "ESC50" / "hparams" / "adapter.yaml"


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that so many are there."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    monkeypatch.setattr(petl_modules.errors, "known_device", lambda name: name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return pretend


@pytest.mark.parametrize(
    ("given", "count", "visible"),
    [
        ({}, 0, [None, None]),
        ({}, 1, ["0", "0"]),
        ({}, 3, ["0", "1"]),
        ({"processes": 2}, 4, ["0,1", "2,3"]),
        ({"processes": 2}, 1, ["0", "0"]),  # "0,0" would be none
        ({"device": "cuda"}, 2, ["0", "1"]),
        ({"device": "cuda:1"}, 2, [None, None]),  # there is no second of one
        ({"device": "cpu"}, 2, [None, None]),
    ],
)
def test_jobs_see_the_gpus_of_their_place(gpus, given, count, visible):
    gpus(count)
    given = {"data_folder": "there", **given}
    processes = given.pop("processes", 1)
    job = Job("ESC50", tuple(given.items()), processes)
    found = [devices(place, job).get("CUDA_VISIBLE_DEVICES") for place in (0, 1)]
    assert found == visible


@pytest.mark.parametrize(
    ("count", "arguments", "words"),
    [
        (1, ("--processes=2",), "2 processes need a GPU each, and there is 1 here"),
        (2, ("--processes=3",), "there are 2 here"),
        (2, ("--processes=2", "--device=cuda"), "each takes a GPU of its own"),
        (2, ("--processes=2",), None),
        (1, ("--processes=2", "--distributed_backend=gloo", "--device=cuda"), None),
        (1, ("--device=cuda:0",), None),
    ],
)
def test_processes_have_a_gpu_each(gpus, count, arguments, words):
    gpus(count)
    config = load_config(ESC50, arguments)
    if words is None:
        refuse_device(config)
        return
    with pytest.raises(UserError, match=words):
        refuse_device(config)
