"""The page in a real browser: it answers, switches, and says what is wrong."""

import os
import re
import shutil

import pytest
from conftest import tone
from test_inference import saved

from petl_modules.errors import UserError
from petl_modules.use.demo import Demo, main
from petl_modules.use.demo_cards import STYLE, Facts, Heard, card
from petl_modules.use.inference import load_adapter

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def folders(checkpoints, tmp_path_factory):
    """Two classifiers on one backbone."""
    root = tmp_path_factory.mktemp("adapters")
    methods = [("bottleneck", {"rank": 2})]
    source = checkpoints["whisper"]
    return [
        saved(source, root / "words", methods, ["yes", "no"]),
        saved(source, root / "mood", methods, ["glad", "sad"]),
    ]


@pytest.fixture
def demo(folders):
    adapters = load_adapter(folders[0], "words")
    adapters.add(folders[1], "mood")
    return Demo(adapters, "Words and moods", {"words": 12_300}, seconds=5.0)


def test_what_the_page_computes(demo, tmp_path):
    assert demo.answer(None, "words") == ("", [], None)
    tone(tmp_path / "long.wav", 300, 9.0, rate=8000)
    heard = demo.hear(tmp_path / "long.wav", "words")  # 2 s at once: its table
    assert heard.parts[0]["start"] == 0 and heard.parts[-1]["end"] == 5.0
    assert heard.seconds == demo.seconds == 5.0
    assert sum(heard.whole["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    message, cards, figure = demo.answer(tmp_path / "long.wav", "words", "mood")
    assert message.startswith("The first 0.0833333 minutes of the clip were heard")
    assert len(cards) == 2 and len(figure.axes) == 2
    assert "petl-line" in cards[0] and "glad" in cards[1]
    (tmp_path / "text.wav").write_text("no sound")
    message, cards, figure = demo.answer(tmp_path / "text.wav", "words")
    assert message.startswith("The clip text.wav cannot be read")
    assert (cards, figure) == ([], None)
    tone(tmp_path / "short.wav", 300, 0.01)
    message, (shown,), _ = demo.answer(tmp_path / "short.wav", "mood", "nothing")
    assert message == "" and "petl-line" not in shown


def test_a_card_says_what_is_known_and_runs_nothing():
    facts = Facts("<b>words</b>", "accuracy 90.4 % on ESC-50", 58_112, 3)
    chances = {"<script>": 0.625, "rain": 0.25, "dog": 0.125}
    whole = {"label": "<script>", "probability": 0.625, "probabilities": chances}
    shown = card(facts, Heard(1.0, whole), top=2)
    assert "accuracy 90.4 % on ESC-50 · 58 kB · 3 classes" in shown
    assert "62.5%" in shown and "rain" in shown and "dog" not in shown
    assert "<script>" not in shown and "&lt;b&gt;words" in shown
    tags = {"labels": ["rain", "dog"], "probabilities": chances}
    assert "<b>rain</b><b>dog</b>" in card(facts, Heard(1.0, tags), top=1)
    none = {"labels": [], "probabilities": chances}
    assert "none of its labels" in card(facts, Heard(1.0, none), top=1)
    parts = [
        {"start": 0.0, "end": 61.5, "text": "Good day."},
        {"start": 61.5, "end": 70.0, "text": ""},
    ]
    text = card(Facts("asr"), Heard(70.0, {"text": "Good day."}, parts), top=5)
    assert "0:00.0 - 1:01.5" in text and text.count("<p><span>") == 2


def test_bad_adapters_are_refused_before_anything_is_served(
    folders, checkpoints, tmp_path
):
    pytest.importorskip("gradio")
    with pytest.raises(UserError, match="no adapter at"):
        main([str(tmp_path)])
    other = saved(checkpoints["ast"], tmp_path / "other", [("linear", {})], ["a", "b"])
    with pytest.raises(UserError, match="not on a whisper model"):
        main([str(folders[0]), str(other)])


@pytest.fixture
def page(demo):
    """The served page in a headless browser."""
    pytest.importorskip("gradio")
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    _, url, _ = (served := demo.page()).launch(
        prevent_thread_lock=True, quiet=True, css=STYLE
    )
    fake_microphone = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ]
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", *fake_microphone]
        )
        tab = browser.new_page()
        tab.goto(url)
        yield tab
        browser.close()
    served.close()


def test_in_a_browser(page, tmp_path):
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    tone(tmp_path / "good.wav", 300, 1.0)
    tone(tmp_path / "long.wav", 300, 600, rate=8000)
    (tmp_path / "text.wav").write_text("no sound")
    cards, message = page.locator(".petl-card"), page.locator(".petl-note")
    picture = page.locator("[data-testid=matplotlib] img")

    def drop(name):
        if page.get_by_label("Clear").count():
            page.get_by_label("Clear").first.click()
        page.locator("input[type=file]").first.set_input_files(tmp_path / name)

    expect(page.get_by_role("heading", name="Words and moods")).to_be_visible()
    for empty in (cards, message, picture):  # no empty boxes
        expect(empty).to_have_count(0)
    drop("good.wav")
    expect(cards).to_have_count(1)
    expect(cards.first).to_contain_text("12 kB · 2 classes")
    expect(cards.first).to_contain_text("yes")
    expect(picture).to_be_visible()
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name="mood").click()
    expect(cards).to_have_count(2)
    expect(cards.nth(1)).to_contain_text("glad")
    boxes = [card.bounding_box() for card in cards.all()]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    page.set_viewport_size({"width": 390, "height": 844})
    narrow = [card.bounding_box() for card in cards.all()]
    assert narrow[0]["y"] < narrow[1]["y"] and narrow[0]["width"] < 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    drop("text.wav")
    expect(message).to_have_text(re.compile("text.wav cannot be read"))
    expect(cards).to_have_count(0)
    expect(picture).to_have_count(0)
    drop("long.wav")
    expect(message).to_have_text(re.compile("of the clip were heard"))
    expect(page.locator(".petl-line")).to_have_count(2)
    page.get_by_label("Clear").first.click()
    expect(picture).to_have_count(0)
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(cards).to_have_count(2)
    expect(picture).to_be_visible()
