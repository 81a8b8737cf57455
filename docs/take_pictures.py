"""Take the pictures of the demo and of a report's page that the documents show.

`python docs/take_pictures.py demo OUT CLIP NAME=ADAPTER...` drops a clip into the demo
and takes it as it looks on a screen, in the dark and on a phone;
`python docs/take_pictures.py report OUT PAGE.html` takes a report's page, and once more
with its rows filtered and sorted. It needs playwright and Chromium.
"""

import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

from petl_modules.console import quiet
from petl_modules.use.adapter_file import TENSORS
from petl_modules.use.demo import Demo
from petl_modules.use.demo_cards import STYLE
from petl_modules.use.inference import load_adapter

SCREEN, PHONE = {"width": 1180, "height": 900}, {"width": 390, "height": 844}
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def demo(out: Path, clip: Path, named: list[str], title: str = "Sounds") -> None:
    """The demo of some adapters on one clip, with the second beside the first."""
    folders = dict(pair.split("=", 1) for pair in named)
    (first, folder), *others = folders.items()
    adapters = load_adapter(folder, first)
    for name, other in others:
        adapters.add(other, name)
    sizes = {n: (Path(f) / TENSORS).stat().st_size for n, f in folders.items()}
    page = Demo(adapters, title, sizes, [clip]).page()
    _, url, _ = page.launch(
        prevent_thread_lock=True,
        quiet=True,
        css=STYLE,
        footer_links=[],
        allowed_paths=[str(clip.parent)],
    )
    looks = {
        "": (SCREEN, "light"),
        "_dark": (SCREEN, "dark"),
        "_phone": (PHONE, "light"),
    }
    for suffix, (size, theme) in looks.items():
        with tab(size) as view:
            view.goto(f"{url}?__theme={theme}")
            view.locator("input[type=file]").first.set_input_files(clip)
            view.locator(".petl-card").first.wait_for()
            if others:
                view.get_by_label("Compare with").click()
                view.get_by_role("option", name=others[0][0]).click()
                view.locator(".petl-card").nth(1).wait_for()
            view.locator("[data-testid=matplotlib] img").wait_for()
            view.wait_for_timeout(1500)
            path = out.with_name(f"{out.stem}{suffix}.png")
            view.screenshot(path=path, full_page=True)
    page.close()


def report(out: Path, page: Path) -> None:
    """A report's page, and what its box and heads do."""
    with tab(SCREEN) as view:
        view.goto(page.resolve().as_uri())
        view.screenshot(path=out)
        view.locator("#words").fill("lora")
        view.locator("th button").nth(3).click()
        view.screenshot(path=out.with_name(f"{out.stem}_filtered.png"))


@contextmanager
def tab(size: dict):
    """A page of a headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox"]
        )
        yield browser.new_page(viewport=size)
        browser.close()


if __name__ == "__main__":
    quiet()
    what, out, *rest = sys.argv[1:]
    if what == "report":
        report(Path(out), Path(rest[0]))
    else:
        demo(Path(out), Path(rest[0]).resolve(), rest[1:])
