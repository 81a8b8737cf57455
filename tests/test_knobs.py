"""Knobs: what signatures and docstrings say, the help, and docs/knobs.md."""

import runpy
from typing import Annotated, Literal

import pytest
from conftest import ROOT, run
from hyperpyyaml import load_hyperpyyaml

from petl_modules.errors import UserError
from petl_modules.kinds import (
    Items,
    Names,
    PositiveInt,
    Probability,
    Range,
    check,
    described,
    understood,
)
from petl_modules.knobs import knobs_of
from petl_modules.methods import make_method, method_knobs, method_table
from petl_modules.methods.table import TABLE
from petl_modules.train.config import load_config
from petl_modules.train.recipes import HPARAMS, RECIPES, prepare_of


def example(size: PositiveInt | None = None, kind: Literal["a", "b"] = "a", free=3):
    """What an example does.

    Arguments
    ---------
    size : int or None
        The size, of two
        lines; None for none.
    kind : str
        The kind.

    Returns
    -------
    int
        No knob.
    """


def test_a_signature_and_its_docstring_say_what_a_knob_is():
    knobs = knobs_of(example, "Here")
    assert list(knobs) == ["size", "kind", "free"]
    size = knobs["size"]
    assert size.help == "The size, of two lines; null for none."
    assert (size.default, size.section) == (None, "Here")
    assert size.described == "a whole number, 1 or more"
    assert knobs["kind"].described == "a or b"
    assert knobs["free"].check([1]) == [1]
    with pytest.raises(UserError, match="size=0 must be a whole number, 1 or more"):
        size.check(0)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (str, "take #1", "take #1"),
        (str, "2024", "2024"),
        (str, "^(\\w+)[0-9]{2}", "^(\\w+)[0-9]{2}"),
        (list[str], "off", ["off"]),
        (list[str], "[off, 5]", ["off", "5"]),
        (Names, "off", ["off"]),
        (list[int], "-1", [-1]),
        (list[int], "1,2", [1, 2]),
        (float, "1e-3", 0.001),
        (float | None, "null", None),
    ],
)
def test_words_of_the_command_line(kind, text, value):
    assert understood(f"--x={text}", text, kind) == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (list[int], True),
        (Probability, 1.0),
        (float, float("nan")),
        (float, 10**400),
        (int, True),
        (Annotated[list[int], Items(1)], []),
        (Annotated[list[int], Items(distinct=True)], [1, 1]),
        (Annotated[float, Range(above=0)], 0.0),
        (str, ""),
        (Literal["a"], "b"),
    ],
)
def test_what_a_kind_refuses(kind, value):
    with pytest.raises(UserError, match="x must be"):
        check("x", value, kind)
    assert described(kind)


@pytest.mark.parametrize(
    ("recipe", "prepare", "knob"),
    [
        ("LibriSpeech/ASR", "librispeech_prepare.prepare_text", "train_sets"),
        ("SpeechCommands", "speechcommands_prepare.prepare_speechcommands", "words"),
        ("VCTK", "vctk_prepare.prepare_vctk", "speakers"),
        ("SNIPS", "snips_prepare.prepare_snips", "test_speakers"),
    ],
)
def test_a_recipe_of_no_sets_words_or_speakers_is_refused(recipe, prepare, knob):
    module, name = prepare.split(".")
    folder = ROOT / "recipes" / recipe
    function = runpy.run_path(str(folder / f"{module}.py"))[name]
    with pytest.raises(UserError, match=rf"{knob}=\[\] must be .*1 or more"):
        load_config(folder / "hparams" / "adapter.yaml", [f"--{knob}=[]"], function)


def test_a_methods_own_defaults_take_the_place_of_its_factorys():
    with open(TABLE, encoding="utf-8") as stream:
        said = load_hyperpyyaml(stream)
    own = {
        name: facts["defaults"] for name, facts in said.items() if "defaults" in facts
    }
    assert own["conv_adapter"] == {"site": "block", "train_norm": False}
    for name, defaults in own.items():
        assert defaults.items() <= make_method(name).knobs.items()


def test_a_methods_knobs_are_checked_from_python_too():
    for name, knobs in (("lora", {"alpha": 1e38}), ("bottleneck", {"layers": True})):
        with pytest.raises(UserError, match="must be"):
            make_method(name, **knobs)
    assert make_method("lora", targets="ffn", layers=-1).knobs["layers"] == [-1]


@pytest.mark.parametrize("expert", ["dense_moa", "soft_moa"])
def test_a_knob_that_the_expert_does_not_read(expert):
    with pytest.raises(UserError, match="expert=convpass"):
        make_method(expert, kernel_size=5)
    assert make_method(expert, kernel_size=5, expert="convpass")


def test_no_data_set_takes_a_knob_by_the_name_of_a_methods():
    """Those that the chosen method has no use for are null."""
    for path in RECIPES.glob(f"**/{HPARAMS}"):
        own = set(knobs_of(prepare_of(path.parent.parent)))
        assert own.isdisjoint(method_knobs()), path


def test_every_knob_of_every_method_is_explained():
    for entry in method_table().values():
        for knob in entry.knobs.values():
            assert knob.help.endswith(".") and knob.help[:1].isupper(), knob


def test_the_help_names_every_knob():
    done = run("ESD", "--help")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    for knob in ("rank", "lr", "speakers", "source", "pooling", "mixup", "device"):
        assert f"--{knob}" in words
    assert "--mixup" not in run("LibriSpeech/phonemes", "--help").stdout.split()


def test_the_page_of_knobs_is_current():
    page = runpy.run_path(str(ROOT / "docs" / "write_knobs.py"))["text"]()
    said = (ROOT / "docs" / "knobs.md").read_text(encoding="utf-8")
    assert said == page, "run python docs/write_knobs.py"
