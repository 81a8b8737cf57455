"""The tutorials do what they say: their blocks are run as they stand, in order."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(
    r"(?:<!-- write (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
COPIED = ("petl_modules", "recipes", "tests", "pyproject.toml")


@pytest.fixture
def copy(tmp_path):
    """A copy of the repository, which a tutorial may change."""
    skipped = shutil.ignore_patterns("__pycache__", "results", ".*")
    for name in COPIED:
        source, there = ROOT / name, tmp_path / "copy" / name
        if source.is_dir():
            shutil.copytree(source, there, ignore=skipped)
        else:
            shutil.copy(source, there)
    return tmp_path / "copy"


@pytest.fixture
def shell(copy, tmp_path):
    """Runs a text as a user's shell does, with python and petl of the copy."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, arguments in (("python", ""), ("petl", "-m petl_modules")):
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        path.chmod(0o755)

    def run(*command):
        done = subprocess.run(
            command,
            cwd=copy,
            capture_output=True,
            text=True,
            timeout=600,
            env={
                **os.environ,
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(copy),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
            },
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"

    return run


def blocks(path):
    """`(file or None, kind, text)` of each fenced block."""
    return [
        match.group("file", "kind", "text")
        for match in BLOCK.finditer(path.read_text())
    ]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path, copy, shell):
    script = []  # blocks of Python share their names, up to the next of the shell
    for file, kind, text in blocks(path):
        if file is not None:
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            (copy / file).write_text(text)
        elif kind == "python":
            script.append(text)
        elif kind == "sh":
            if script:
                shell("python", "-c", "\n".join(script))
                script = []
            shell("bash", "-euo", "pipefail", "-c", text)
    if script:
        shell("python", "-c", "\n".join(script))


def test_there_are_tutorials_and_every_block_is_found():
    assert len(TUTORIALS) >= 4
    for path in TUTORIALS:
        assert path.read_text().count("```") == 2 * len(blocks(path)), path
        kinds = {kind for _, kind, _ in blocks(path)}
        assert kinds <= {"python", "sh", "yaml", "text"}
