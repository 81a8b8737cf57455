"""What is installed suffices for what it is installed for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tone
from test_inference import saved

ROOT = Path(__file__).parent.parent
tomllib = pytest.importorskip("tomllib")  # of Python 3.11
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Runs a command as if what only other extras bring were not there
WITHOUT = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, *places):
        return None if name.partition(".")[0] in {gone!r} else super().find_spec(
            name, *places
        )
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from petl_modules.commands import main
main(sys.argv[1:])
"""
TRAIN_ONLY = {"sklearn", "matplotlib", "tensorboard", "submitit", "optuna"}
OTHERS = {"g2p", "pyworld", "onnx", "onnxruntime", "onnxscript", "gradio", "fastapi"}


def without(gone, *arguments):
    program = WITHOUT.format(gone=gone)
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
    )


def test_requirements_are_those_of_the_package_and_its_extras():
    extras = PROJECT["optional-dependencies"]
    of_package = {*PROJECT["dependencies"], *(r for e in extras.values() for r in e)}
    lines = (ROOT / "requirements.txt").read_text().partition("# tests")[0].splitlines()
    wanted = {line for line in lines if line and not line.startswith("#")}
    own = {line for line in of_package if line.startswith("petl-modules[")}
    optional = {line for line in of_package if re.match("gradio|resemblyzer", line)}
    assert of_package - own - optional == wanted


def test_predict_needs_nothing_that_only_training_does(checkpoints, tmp_path):
    methods = [("lora", {"rank": 2})]
    adapter = saved(checkpoints["wav2vec2"], tmp_path / "a", methods, ["no", "yes"])
    tone(tmp_path / "a.wav", 300, 1.0)
    arguments = ["predict", str(adapter), str(tmp_path / "a.wav"), "--device=cpu"]
    done = without(TRAIN_ONLY | OTHERS, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\t")[1] in ("no", "yes")


def test_what_is_not_installed_is_said_with_the_extra_that_brings_it():
    done = without({"optuna"}, "search", "ESC50", "--method=lora", "--trials=1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: optuna is not installed: pip install -e .[train] brings it."
    )
