"""A benchmark on a real SLURM, where there is one."""

import shutil
import subprocess
import time

import pytest
from test_benchmark import start, write

from petl_modules.grid.benchmark import load_benchmark
from petl_modules.grid.jobs import failure

pytestmark = pytest.mark.skipif(
    shutil.which("sbatch") is None  # or its daemon is not there
    or subprocess.run(
        ["scontrol", "ping"], capture_output=True, check=False
    ).returncode,
    reason="needs SLURM",
)


def test_jobs_run_as_an_array(checkpoints, class_folders, tmp_path):
    file = write(
        tmp_path / "grid.yaml",
        recipes=[{"recipe": "AudioFolder", "data_folder": str(class_folders)}],
        methods=["linear", {"method": "linear", "lr": 1e30}],
        overrides={"source": str(checkpoints["ast"]), "number_of_epochs": 2},
        output_folder=str(tmp_path / "out"),
        slurm={"time": 10, "gpus_per_node": 0},
    )
    good, bad = load_benchmark(file).jobs
    for said in ("Submitted 2 jobs", "2 jobs are in the queue already"):
        process = start("run", file, "--slurm")
        assert said in process.communicate(timeout=200)[1]
        assert process.returncode == 0
    deadline = time.monotonic() + 200
    while failure(bad.folder) is None or good.results() is None:
        assert time.monotonic() < deadline
        time.sleep(1)
    assert "not finite" in failure(bad.folder)
