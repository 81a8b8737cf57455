"""`describe` gives the published parameter counts of AST-base."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from petl_modules.train.describe import main

HPARAMS = ROOT / "recipes" / "ESC50" / "hparams" / "adapter.yaml"


def described(capsys, *arguments):
    main([str(HPARAMS), "--pretrained=False", "--json", *arguments])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--method=bottleneck", "--rank=12"], 248_976),
        (["--method=bottleneck", "--reduction_rate=64", "--site=both"], 497_952),
        (["--method=conformer", "--rank=8", "--kernel_size=31"], 270_720),
        (
            ["--method=conformer", "--rank=8", "--kernel_size=31", "--site=both"],
            541_440,
        ),
        (["--method=lora", "--rank=6", "--targets=[q,v]"], 221_184),
        (["--method=prompt", "--prompt_length=25"], 230_400),
        (["--method=prompt", "--deep=False", "--prompt_length=300"], 230_400),
        (["--method=prefix", "--prompt_length=24"], 221_184),
        (["--method=dense_moa", "--num_adapters=7", "--rank=6"], 922_188),
        (["--method=soft_moa", "--num_adapters=7", "--rank=6"], 922_104),
        (["--method=bitfit"], 102_144),
        (["--method=linear"], 0),
    ],
)
def test_published_counts(capsys, arguments, count):
    found = described(capsys, *arguments)
    assert found["petl"] + found["site_norms"] == count
    parts = ("petl", "site_norms", "last_norm", "head")
    assert found["trainable"] == sum(found[part] for part in parts)
    assert found["head"] == 50 * 768 + 50


def test_linear_and_full(capsys):
    linear = described(capsys, "--method=linear")
    assert linear["trainable"] == 39_986
    assert (
        described(capsys, "--method=linear", "--num_classes=10")["trainable"] == 9_226
    )
    full = described(capsys, "--method=full")
    assert full["petl"] + full["last_norm"] == full["backbone"]
    assert 85e6 < full["backbone"] < 88e6


def test_the_table_from_a_command_line():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "petl_modules.describe",
            HPARAMS,
            "--pretrained=False",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "RANDOM" in done.stderr
    for word in ("method", "mhsa", "last norm", "head", "trained", "% of backbone"):
        assert word in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "petl_modules.describe", HPARAMS, "--mehtod=lora"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "--method" in done.stderr
