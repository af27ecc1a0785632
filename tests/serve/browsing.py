"""What tests of the page share: a browser, a gallery of still lifes that is served, small steps."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("fastapi", reason="the service's packages are not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if not CHROMIUM:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking "
    "--disable-component-update --disable-sync"
)
# Forms with files are not shown to Playwright: what was sent is noted in the page.
SENT = """
window.sent = [];
const plain = window.fetch;
window.fetch = (url, options) => {
  if (options?.body instanceof FormData)
    sent.push(Object.fromEntries([...options.body].map(([k, v]) => [k, v.name ?? v])));
  return plain(url, options);
};
"""
SCORES = {
    "when": "2026-01-02T03:04:05+0000",
    "scores": [
        {"protocol": "all", "title": "all against all", "level": "image", "primary": "mAP",
         "mAP": 0.754, "R@1": 0.91, "queries": 8, "intervals": {"mAP": [0.7, 0.8]}},
        {"protocol": "objects", "title": "objects", "level": "object", "primary": "mAP",
         "mAP": 0.81},
    ],
}  # fmt: skip
REPORT = """<!doctype html><title>r</title><style>h1 { color: rgb(1, 2, 3); }</style>
<h1>How it went</h1><img alt="dot" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<script>document.querySelector("h1").textContent = "taken over"; parent.broken = true;</script>
"""
SIZES = {"desk": (1280, 860, False), "phone": (390, 844, True)}
NAMES = [
    "red mug",
    "blue kettle",
    "teapot <b>",
    "green jar",
    "tall vase",
    "bowl & lid",
    "jug",
    "plate 7",
]


def still_life(number: int, shot: int) -> Image.Image:
    """A thing on a table: what it is by its number, how it stands and is lit by the shot."""
    rng = np.random.default_rng([5, number])
    back, thing, band = (tuple(int(v) for v in rng.integers(30, 226, 3)) for _ in range(3))
    picture = Image.new("RGB", (220, 180), back)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 130, 220, 180), fill=tuple(v // 2 for v in back))
    x, wide, tall = 70 + 6 * shot, 60 + 6 * (number % 4), 60 + 8 * (number % 5)
    pen.rounded_rectangle((x, 150 - tall, x + wide, 150), 14, fill=thing)
    pen.rectangle((x, 120, x + wide, 130), fill=band)
    noise = np.random.default_rng([9, number, shot]).normal(0, 6, (180, 220, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "things"
    folder.mkdir()
    lines = ["path,object,place,shelf"]
    for number, name in enumerate(NAMES):
        for shot in range(4):
            still_life(number, shot).save(folder / f"{number}-{shot}.png")
            lines.append(f"{number}-{shot}.png,{name},{('shop', 'store')[shot % 2]},{number % 3}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    for shot in (5, 6):
        still_life(1, shot).save(folder.parent / f"new-{shot}.png")
    rng = np.random.default_rng(4)
    Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((240, 180), 0).save(
        folder.parent / "strange.png"
    )
    return folder


@pytest.fixture(scope="module")
def address(pictures: Path, embedder: Any, serving: Callable[..., Any]) -> str:
    """Where the service is. What a test changes it changes back."""
    from resight.search.gallery import Gallery
    from resight.search.overview import make_in

    folder = pictures.parent / "gallery"
    with Gallery.create(folder, embedder, "image") as gallery:
        gallery.add(pictures / "index.csv")
        gallery.calibrate("image")
    make_in(folder)
    evaluation = pictures.parent / "evaluations" / "still lifes"
    evaluation.mkdir(parents=True)
    (evaluation / "scores.json").write_text(json.dumps(SCORES))
    (evaluation / "report.html").write_text(REPORT)
    told = ("--set", "deadline=60", "--reports", str(pictures.parent / "evaluations"))
    return serving(folder, *told)[0] + "/"


@pytest.fixture(scope="module")
def browser() -> Iterator[api.Browser]:
    with api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield started
        started.close()


class Watched:
    """A page, and all that it complained of."""

    def __init__(self, browser: api.Browser, size: str, scheme: str = "light"):
        width, height, touch = SIZES[size]
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            has_touch=touch, is_mobile=touch, color_scheme=scheme, reduced_motion="reduce",
        )  # fmt: skip
        self.context.set_default_timeout(60_000)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.bytes = 0
        self.page.add_init_script(SENT)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)


@pytest.fixture(params=list(SIZES))
def watched(
    request: pytest.FixtureRequest, browser: api.Browser, address: str
) -> Iterator[Watched]:
    one = Watched(browser, request.param)
    yield one
    one.context.close()
    assert one.errors == []


def choose(page: api.Page, *files: Path) -> None:
    page.locator("input[type=file][multiple]").last.set_input_files([str(f) for f in files])


def until(page: api.Page, condition: str) -> None:
    """As `wait_for_function`, which the page's policy forbids: it takes strings for code."""
    for _ in range(150):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(condition)


def photo(pictures: Path) -> Path:
    return pictures.parent / "new-5.png"


def images(address: str) -> int:
    return httpx.get(address + "v1/gallery").json()["images"]


def hits(page: api.Page) -> api.Locator:
    page.locator(".results:not([aria-busy]) .hit").first.wait_for()
    return page.locator(".hit")


def doubt(page: api.Page, address: str) -> list[dict[str, Any]]:
    """Doubtful images as a service may name them: a pair of images that are there, and outliers."""
    every: list[dict[str, Any]] = httpx.get(address + "v1/images?limit=100").json()["images"]

    def answer(route: api.Route) -> None:
        now = {o["image"]: o for o in httpx.get(address + "v1/images?limit=100").json()["images"]}
        a, b = now[every[0]["image"]], now[every[5]["image"]]
        told: dict[str, Any] = {"next": None, "making": False, "current": True, "usual": 0.8}
        if "kind=pairs" in route.request.url:
            apart = a["object"] != b["object"]
            pair = {"images": [a, b], "similarity": 0.991, "same_file": False}
            told |= {"kind": "pairs", "pairs": [pair] * apart, "outliers": [], "total": int(apart)}
        else:
            far = [now[one["image"]] | {"similarity": 0.31} for one in every[8:11]]
            told |= {"kind": "outliers", "pairs": [], "outliers": far, "total": 3}
        route.fulfill(json=told)

    page.route("**/v1/doubtful*", answer)
    return every
