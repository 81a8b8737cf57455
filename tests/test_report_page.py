"""A report's page in a real browser: it sorts, filters, and loads nothing else."""

import shutil

import pytest

from petl_modules.grid.page import page
from petl_modules.grid.tables import Table

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HEADS = ["method", "test accuracy, %", "trained"]
ROWS = [
    ["lora rank=8", "88.50", "85,258"],
    ["linear", "86.25", "1,930"],
    ["*lora, published*", "*86.45*", "*221K*"],
    ["conformer", "", "4M"],
]


@pytest.fixture
def shown(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    path = tmp_path / "report.html"
    path.write_text(page("Runs", [Table("ESC-10", HEADS, ROWS)], ["x: failed"], []))
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        yield tab
        assert asked == [path.as_uri()]
        browser.close()


def test_rows_are_sorted_and_kept_by_words(shown):
    def names():
        cells = shown.locator("tbody tr:not([hidden]) td:first-child")
        return [text.split()[0].strip(",") for text in cells.all_inner_texts()]

    assert names() == ["lora", "linear", "lora", "conformer"]
    shown.get_by_role("button", name="trained").click()
    assert names() == ["linear", "lora", "lora", "conformer"]
    shown.get_by_role("button", name="test accuracy").click()
    shown.get_by_role("button", name="test accuracy").click()  # the other way
    assert names() == ["lora", "lora", "linear", "conformer"]  # the empty cell last
    shown.get_by_label("Keep rows with").fill("lora 88")
    assert names() == ["lora"]
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
