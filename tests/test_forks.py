"""Runs in forks of a server that has imported what they need."""

import subprocess
import sys

import pytest
import torch

RUN = """
import sys
from petl_modules.grid import forks
forks.SERVER = sys.argv[1]
with open("log.txt", "w") as log, open("held", "w") as held:
    given = [sys.executable, *sys.argv[2:]], log.fileno(), held.fileno()
    status = forks.run_forked(*given, {"PETL_SAID": "yes"})
    sys.exit(status)
"""
TRAIN = """
import os, sys
print("torch" in sys.modules, os.environ["PETL_SAID"], *sys.argv[1:])
print(os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK"))
print(open(0).read(), end="")
sys.exit(3)
"""
SERVER = """
import torch
from petl_modules.grid import server
server.HAS_GPU = True
torch.cuda._is_in_bad_fork = lambda: {}
"""
# As on a machine with a GPU: what asks the driver, in torch's own code
ASKED = """
import torch
torch.cuda._is_compiled = lambda: True
torch.cuda._device_count_nvml = lambda: 1
torch._C._cuda_getDeviceCount = lambda: sys.exit("the driver was asked")
import petl_modules.grid.server as server, os, speechbrain
assert server.HAS_GPU and server.NVML not in os.environ
"""


def run_python(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )


@pytest.mark.parametrize("driver_was_asked", [False, True])
def test_a_job_is_the_process_of_its_command_line(
    tmp_path, monkeypatch, driver_was_asked
):
    """Also where CUDA's driver was asked before the fork, which may then use no GPU."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    (tmp_path / "own_server.py").write_text(SERVER.format(driver_was_asked))
    (tmp_path / "train.py").write_text(TRAIN)
    given = tmp_path / "train.py", "hparams/adapter.yaml", "--lr=1"
    ran = run_python("-c", RUN, "own_server", *given, cwd=tmp_path)
    assert ran.returncode == 3, ran.stderr
    said = (tmp_path / "log.txt").read_text().split("\n")
    assert said == [
        f"{not driver_was_asked} yes hparams/adapter.yaml --lr=1",
        "None",
        "",
    ]


def test_the_server_leaves_the_driver_alone(tmp_path):
    ran = run_python("-c", f"import sys{ASKED}", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_job_can_use_the_gpu(tmp_path):
    (tmp_path / "train.py").write_text(
        "import torch; print(torch.ones(2, device='cuda').sum().item())"
    )
    given = tmp_path / "train.py", "hparams/adapter.yaml"
    ran = run_python("-c", RUN, "petl_modules.grid.server", *given, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "log.txt").read_text() == "2.0\n"
