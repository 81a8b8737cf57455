"""The script that breaks one line at a time still finds its lines."""

import pytest
from conftest import ROOT
from mutations import MUTATIONS


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_finds_its_line_and_its_tests(name):
    path, old, new, tests = MUTATIONS[name]
    text = (ROOT / "petl_modules" / path).read_text(encoding="utf-8")
    assert text.count(old) == 1 and old != new
    assert (ROOT / "tests" / tests.split()[0]).exists()
