"""The page of questions in a real browser: answered by keyboard, saved, and compared."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asking import features, photos, precision, truth
from command import resight

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if not CHROMIUM:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)

FLAGS = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-sync"
SIZES = {"desk": (1280, 800, "light"), "phone": (390, 844, "dark")}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about all photos on which a good and a bad embedder differ."""
    folder = tmp_path_factory.mktemp("page") / "x<" / "script><img src=x onerror=alert(2)>"
    folder.mkdir(parents=True)
    photos(folder)
    words = []
    for name, noise, seed in (("good", 0.3, 1), ("bad", 1.0, 2)):
        np.save(folder / f"{name}.npy", features(noise, seed))
        words.append(str(folder / f"{name}.npy"))
    out = folder / "ask.html"
    assert resight("ask", *words, str(folder / "photos"), "--out", str(out), "--pairs", "100") == 0
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[api.Browser]:
    with api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield started
        started.close()


@pytest.fixture(params=list(SIZES))
def page(request: pytest.FixtureRequest, browser: api.Browser, page_file: Path) -> Iterator[Any]:
    """The page opened as a file. It asks for nothing else, and complains of nothing."""
    width, height, scheme = SIZES[request.param]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
    )
    context.set_default_timeout(20_000)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda e: faults.append(str(e)))
    opened.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    opened.on("dialog", lambda d: (faults.append(f"dialog {d.message}"), d.dismiss()))
    opened.on(
        "request",
        lambda r: None if r.url.startswith(("data:", "blob:", page_file.as_uri()))
        else faults.append(r.url),
    )  # fmt: skip
    opened.goto(page_file.as_uri())
    yield opened
    context.close()
    assert faults == []


def design(page: Any) -> dict[str, Any]:
    return dict(json.loads(page.locator("#content").text_content())["design"])


def saved(page: Any, out: Path) -> dict[str, Any]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save answers").click()
    assert download.value.suggested_filename == "answers.json"
    download.value.save_as(out)
    return dict(json.loads(out.read_text(encoding="utf-8")))


def test_answered_by_keyboard_saved_and_compared(page: Any, tmp_path: Path, capfd) -> None:
    known = design(page)
    right = truth(known)
    heading = page.locator("#heard")
    keys = {"same": "s", "different": "D"}
    for k in range(len(right)):
        api.expect(page.locator("#count")).to_have_text(f"{k + 1} of {len(right)}")
        page.keyboard.press(keys[right[str(k)]])
    api.expect(page.get_by_role("heading", name="All pairs answered")).to_be_visible()
    api.expect(heading).to_contain_text("All pairs answered")
    api.expect(page.locator("#pictures")).to_be_hidden()
    found = saved(page, tmp_path / "answers.json")
    assert found["answers"] == right and found["design"] == known
    assert json.loads(page.locator("#text").input_value())["answers"] == right
    capfd.readouterr()
    assert resight("compare", "--answers", str(tmp_path / "answers.json"), "--json") == 0
    exact = precision(features(0.3, 1)) - precision(features(1.0, 2))
    assert json.loads(capfd.readouterr().out)["over_all"]["value"] == pytest.approx(exact)


def test_back_space_and_staying(page: Any, tmp_path: Path) -> None:
    """Answers can be changed, a key held down counts once, and a reload keeps what was said."""
    count = page.locator("#count")
    for key in ("s", "d", " ", "Control+s"):
        page.keyboard.press(key)
    total = len(design(page)["pairs"])
    api.expect(count).to_have_text(f"4 of {total}")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    api.expect(page.get_by_role("button", name="Different")).to_have_attribute(
        "aria-pressed", "true"
    )
    page.keyboard.press("c")
    api.expect(count).to_have_text(f"3 of {total}")
    page.keyboard.down("s")
    for _ in range(3):
        page.keyboard.down("s")  # repeats, as of a key held down
    page.keyboard.up("s")
    api.expect(count).to_have_text(f"4 of {total}")
    page.get_by_role("button", name="Same").click()
    page.keyboard.press(" ")  # the button has not kept the focus
    page.reload()
    api.expect(count).to_have_text(f"6 of {total}")
    said = saved(page, tmp_path / "half.json")["answers"]
    assert said == {"0": "same", "1": "unsure", "2": "same", "3": "same", "4": "unsure"}


def test_all_is_in_sight(page: Any) -> None:
    """Both photos are large and in the window with the buttons; nothing is cut off sideways."""
    window = page.viewport_size
    api.expect(page.locator("#left")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for side in ("left", "right"):
        assert page.evaluate(f"document.getElementById('{side}').naturalWidth") > 0
        box = page.locator(f"#{side}").bounding_box()
        assert box["height"] >= 220 and box["width"] >= 300
        assert box["y"] + box["height"] <= window["height"]
    box = page.get_by_role("button", name="Different").bounding_box()
    assert box["y"] + box["height"] <= window["height"] and box["height"] >= 44
    names = page.locator("main").inner_text()
    assert "good.npy" in names and "onerror" in names  # as text: nothing of it ran
    assert not any(name in names for name in (".png", "photos/"))
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(21, 23, 27)" if window["width"] < 500 else "rgb(251, 251, 250)")
    if os.environ.get("SHOTS"):
        page.screenshot(path=f"{os.environ['SHOTS']}/ask-{window['width']}.png")
