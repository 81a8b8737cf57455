"""The picture of the architecture is that of the code."""

import importlib.util
import re

import pytest
from conftest import ROOT

PATH = ROOT / "docs" / "draw_architecture.py"
spec = importlib.util.spec_from_file_location("draw_architecture", PATH)
drawing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(drawing)


def test_the_picture_has_the_arrows_of_the_code():
    """Where this fails: python docs/draw_architecture.py."""
    text = drawing.PICTURE.read_text(encoding="utf-8")
    pictured = {tuple(a.split()) for a in re.findall(r'data-imports="([^"]+)"', text)}
    assert pictured == drawing.shown(drawing.edges())
    assert {name for pair in pictured for name in pair} == set(drawing.SAYS)


def test_arrows_are_read_from_the_imports(tmp_path):
    package = tmp_path / "petl_modules"
    for name, text in {
        "core/a.py": "",
        "use/b.py": "def f():\n    from petl_modules.core import a",
        "use/c.py": "def main(): ...\nimport petl_modules.use.b",
        "train/d.py": "from petl_modules.use.b import f\nimport petl_modules.core.a",
        "errors.py": "",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    found = drawing.edges(package)
    direct = {("use", "core"), ("train", "use"), ("commands", "use")}
    assert found == direct | {("train", "core")}
    assert drawing.shown(found) == direct
    assert drawing.heights(found) == {"core": 0, "use": 1, "train": 2, "commands": 2}


def test_a_circle_is_no_architecture():
    with pytest.raises(ValueError, match=r"circle: (a -> b -> a|b -> a -> b)"):
        drawing.heights({("a", "b"), ("b", "a")})
