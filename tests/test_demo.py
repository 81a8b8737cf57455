"""The page in a real browser: it answers, switches, and says what is wrong."""

import os
import re
import shutil

import pytest
from conftest import tone
from test_inference import saved

from petl_modules.errors import UserError
from petl_modules.use.demo import Demo, main
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
    return Demo(adapters)


def test_what_the_page_computes(demo, tmp_path):
    assert demo.answer(None, "words") == ("", None, None, None)
    tone(tmp_path / "long.wav", 300, 600, rate=8000)
    message, probabilities, _, figure = demo.answer(tmp_path / "long.wav", "words")
    assert message == "The clip has 600.0 s: the first 2.0 s are used."  # its table
    assert probabilities.keys() == {"yes", "no"} and len(figure.axes) == 2
    (tmp_path / "text.wav").write_text("no sound")
    message, *nothing = demo.answer(tmp_path / "text.wav", "words")
    assert message.startswith("The clip text.wav cannot be read")
    assert nothing == [None] * 3
    tone(tmp_path / "short.wav", 300, 0.01)
    message, probabilities, *_ = demo.answer(tmp_path / "short.wav", "mood")
    assert message == "" and sum(probabilities.values()) == pytest.approx(1)


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
    _, url, _ = (served := demo.page()).launch(prevent_thread_lock=True, quiet=True)
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
    message = page.get_by_label("Message")

    def drop(name):
        if page.get_by_label("Clear").count():
            page.get_by_label("Clear").first.click()
        page.locator("input[type=file]").first.set_input_files(tmp_path / name)

    drop("good.wav")
    picture = page.locator("[data-testid=matplotlib] img")
    expect(picture).to_be_visible()
    expect(page.get_by_text("yes").first).to_be_visible()
    page.get_by_label("Adapter", exact=True).click()
    page.get_by_role("option", name="mood").click()
    expect(page.get_by_text("glad").first).to_be_visible()
    drop("text.wav")
    expect(message).to_have_value(re.compile("text.wav cannot be read"))
    expect(picture).to_have_count(0)
    drop("long.wav")
    expect(message).to_have_value("The clip has 600.0 s: the first 2.0 s are used.")
    page.get_by_label("Clear").first.click()
    expect(picture).to_have_count(0)
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(picture).to_be_visible()
    # a busy machine stops late
    cut = r"The clip has [\d.]+ s: the first 2\.0 s are used\."
    expect(message).to_have_value(re.compile(f"^({cut})?$"))
