"""The page in a real browser, at the size of a desk and of a phone."""

from __future__ import annotations

import base64
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
SIZES = {"desk": (1280, 860, False), "phone": (390, 844, True)}
PAGE = Path(__file__).parents[2] / "src/resight/serve/page"
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

    folder = pictures.parent / "gallery"
    with Gallery.create(folder, embedder, "image") as gallery:
        gallery.add(pictures / "index.csv")
        gallery.calibrate("image")
    return serving(folder, "--set", "deadline=60")[0] + "/"


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
        self.context.set_default_timeout(15_000)
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


def test_a_photo_finds_its_object(watched: Watched, address: str, pictures: Path) -> None:
    page = watched.page
    page.goto(address)
    api.expect(page.get_by_role("heading", name="Seen it before?")).to_be_visible()
    choose(page, photo(pictures))
    best = hits(page).first
    api.expect(best.locator("h1")).to_have_text("blue kettle")
    api.expect(best.locator(".before")).to_contain_text("%")
    api.expect(page.locator("#live")).to_contain_text("blue kettle")
    api.expect(page.locator(".timing")).to_contain_text("ms")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert best.locator("h1").bounding_box()["y"] < page.viewport_size["height"]
    best.locator("a").first.click()  # all images of the object
    api.expect(page.get_by_role("heading", name="blue kettle")).to_be_visible()
    api.expect(page.locator(".image")).to_have_count(4)
    page.go_back()
    api.expect(hits(page).first.locator("h1")).to_have_text("blue kettle")


def test_what_is_not_there_is_said(watched: Watched, address: str, pictures: Path) -> None:
    page = watched.page
    page.goto(address)
    choose(page, pictures.parent / "strange.png")
    api.expect(page.get_by_role("heading", name="Not in the gallery")).to_be_visible()
    assert hits(page).count() == len(NAMES)


def test_dropped_and_pasted(watched: Watched, address: str, pictures: Path) -> None:
    page = watched.page
    page.goto(address)
    page.locator(".finder").wait_for()
    data = base64.b64encode(photo(pictures).read_bytes()).decode()
    for event, holder in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.evaluate(
            """async ([data, event, holder]) => {
                const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
                const held = new DataTransfer();
                held.items.add(new File([bytes], "a.png", { type: "image/png" }));
                const made = event === "drop" ? DragEvent : ClipboardEvent;
                document.body.dispatchEvent(
                    new made(event, { [holder]: held, bubbles: true, cancelable: true }));
            }""",
            [data, event, holder],
        )
        api.expect(hits(page).first.locator("h1")).to_have_text("blue kettle")
        page.keyboard.press("n")
        page.locator(".finder").wait_for()


def test_several_photos_and_samples(watched: Watched, address: str, pictures: Path) -> None:
    page = watched.page
    page.goto(address)
    choose(page, photo(pictures), pictures.parent / "new-6.png")
    hits(page)
    api.expect(page.locator(".query canvas")).to_have_count(2)
    page.get_by_role("link", name="Search", exact=True).click()
    page.get_by_role("link", name="Search with an image of jug").click()
    api.expect(hits(page).first.locator("h1")).to_have_text("jug")
    assert "image=" in page.url
    again = page.context.new_page()  # the address alone opens it again
    again.goto(page.url)
    api.expect(again.locator(".hit h1")).to_have_text("jug")


def test_the_box(watched: Watched, address: str, pictures: Path) -> None:
    page = watched.page
    page.goto(address)
    choose(page, photo(pictures))
    hits(page)
    page.get_by_role("button", name="Mark the thing").click()
    api.expect(page.locator(".box")).to_be_visible()
    page.wait_for_url("**box=**")
    until(page, "sent.at(-1).region === '44,36,176,144'")
    page.locator(".stage").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.wait_for_url("**box=0.22**0.82**")
    page.keyboard.press("Delete")
    api.expect(page.locator(".box")).to_be_hidden()
    if not page.evaluate("matchMedia('(pointer: coarse)').matches"):
        stage = page.locator(".stage").bounding_box()
        page.mouse.move(stage["x"] + 30, stage["y"] + 30)
        page.mouse.down()
        page.mouse.move(stage["x"] + 150, stage["y"] + 120, steps=4)
        page.mouse.up()
        page.wait_for_url("**box=**")
        before = page.url
        page.mouse.move(stage["x"] + 90, stage["y"] + 80)  # and moved by its middle
        page.mouse.down()
        page.mouse.move(stage["x"] + 110, stage["y"] + 90, steps=4)
        page.mouse.up()
        page.wait_for_url(lambda url: "box=" in url and url != before)
        page.get_by_role("button", name="Clear the box").click()
        page.wait_for_url(lambda url: "box=" not in url)


def test_filters_and_level(watched: Watched, address: str) -> None:
    page = watched.page
    page.goto(address + "?image=1")
    every = hits(page).count()
    if page.locator(".filters:not([open])").count():
        page.locator("summary").click()
    page.get_by_text("shop", exact=True).click()
    page.wait_for_url("**f.place=shop**")
    page.get_by_label("shelf, to").fill("0")
    page.wait_for_url("**f.shelf=**")
    api.expect(page.locator(".timing")).to_contain_text("2 filters")
    assert 0 < hits(page).count() < every
    page.get_by_text("Both", exact=True).click()
    page.wait_for_url("**level=both**")
    page.get_by_role("button", name="Clear filters").click()
    page.wait_for_url(lambda url: "f." not in url)
    api.expect(page.locator(".hit")).to_have_count(every)
    page.go_back()
    api.expect(page.locator(".timing")).to_contain_text("filter")


def test_right_wrong_and_undo(watched: Watched, address: str, pictures: Path) -> None:
    page = watched.page
    page.goto(address)
    choose(page, photo(pictures))
    first = hits(page).first
    page.keyboard.press("r")
    api.expect(page.locator("#notices")).to_contain_text("Noted")
    api.expect(first.locator(".say-right")).to_have_attribute("aria-pressed", "true")
    with page.expect_request(lambda r: r.method == "DELETE" and "feedback" in r.url):
        page.keyboard.press("u")
    api.expect(first.locator(".say-right")).to_have_attribute("aria-pressed", "false")
    second = page.locator(".hit").nth(1)
    first.locator("a").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("w")
    until(page, "JSON.parse(sent.at(-1).answer ?? '{}').right === false")
    assert page.evaluate("sent.at(-1).photo.length") > 0
    api.expect(second.locator(".say-wrong")).to_have_attribute("aria-pressed", "true")


def test_add_and_undo(watched: Watched, address: str, pictures: Path) -> None:
    page = watched.page
    before = images(address)
    page.goto(address)
    choose(page, photo(pictures))
    hits(page)
    field = page.get_by_label("Add it to the gallery as")
    field.fill("a new thing")
    page.get_by_role("button", name="Add", exact=True).click()
    api.expect(page.locator("#notices")).to_contain_text("added to a new thing")
    api.expect(hits(page).first.locator("h1")).to_have_text("a new thing")
    assert images(address) == before + 1
    page.get_by_role("button", name="Undo").click()
    api.expect(hits(page).first.locator("h1")).to_have_text("blue kettle")
    assert images(address) == before
    field.fill("ket")  # names are completed
    page.locator("datalist option[value='blue kettle']").wait_for(state="attached")


def test_move_remove_and_undo(watched: Watched, address: str, pictures: Path) -> None:
    page = watched.page
    file = {"photo": ("more.png", (pictures.parent / "new-6.png").read_bytes())}
    answer = httpx.post(address + "v1/images", data={"object": "jug"}, files=file, timeout=60)
    added = answer.json()
    before = images(address)
    page.goto(address + "?view=gallery&object=jug")
    api.expect(page.locator(".image")).to_have_count(5)
    page.get_by_role("button", name="Move 6-0.png", exact=True).click()
    page.get_by_label("It shows").fill("tall vase")
    page.get_by_role("button", name="Move", exact=True).click()
    api.expect(page.locator(".image")).to_have_count(4)
    page.get_by_role("button", name="Undo").click()
    api.expect(page.locator(".image")).to_have_count(5)
    remove = page.get_by_role("button", name=f"Remove {added['name']}", exact=True)
    remove.click()
    api.expect(page.locator(".image:visible")).to_have_count(4)
    page.get_by_role("button", name="Undo").click()
    api.expect(page.locator(".image:visible")).to_have_count(5)
    assert images(address) == before
    remove.click()
    page.get_by_role("button", name="Dismiss").click()
    api.expect(page.locator(".image")).to_have_count(4)
    assert images(address) == before - 1


def test_the_gallery(watched: Watched, address: str) -> None:
    page = watched.page
    page.goto(address)
    page.get_by_role("link", name="Gallery", exact=True).click()
    api.expect(page.locator(".object")).to_have_count(len(NAMES))
    page.keyboard.press("/")
    page.keyboard.type("kettle")
    api.expect(page.locator(".object")).to_have_count(1)
    assert "q=kettle" in page.url
    page.reload()
    page.get_by_role("link", name="blue kettle").click()
    page.get_by_role("link", name="Objects like it").click()
    api.expect(page.locator(".verdict h1")).to_have_text("Like blue kettle")
    assert hits(page).count() == len(NAMES) - 1
    page.goto(address + "?view=gallery&object=" + "teapot%20%3Cb%3E")  # names are data
    api.expect(page.get_by_role("heading", name="teapot <b>")).to_be_visible()


def offers(page: api.Page, address: str) -> None:
    """Map and doubtful images, as a service may offer them."""
    told = httpx.get(address + "v1/gallery").json() | {"offers": ["map", "doubtful"]}
    every = httpx.get(address + "v1/images?limit=100").json()["images"]
    rng = np.random.default_rng(3)
    points = [
        [*rng.normal(NAMES.index(one["object"]), 0.2, 2).round(3).tolist(), one["image"],
         NAMES.index(one["object"])]
        for one in every
    ]  # fmt: skip
    answers = {
        "gallery": told,
        "map": {"points": points, "objects": NAMES},
        "doubtful*": {
            "near_duplicates": [[every[0], every[5], 0.991]],
            "outliers": [one | {"similarity": 0.31} for one in every[8:11]],
        },
    }
    for name, answer in answers.items():
        page.route(f"**/v1/{name}", lambda route, _, body=answer: route.fulfill(json=body))


def test_doubtful_and_map(watched: Watched, address: str) -> None:
    page = watched.page
    offers(page, address)
    page.goto(address + "?view=gallery")
    page.get_by_role("link", name="Doubtful").click()
    api.expect(page.locator(".pair")).to_have_count(1)
    page.get_by_role("link", name="Map").click()
    canvas = page.locator(".map canvas")
    canvas.focus()
    page.keyboard.press("+")
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    api.expect(page.locator(".map-list .image")).to_have_count(4 * len(NAMES))
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Lasso").click()
    place = canvas.bounding_box()
    ring = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98)]
    at = [(place["x"] + x * place["width"], place["y"] + y * place["height"]) for x, y in ring]
    page.mouse.move(*at[0])
    page.mouse.down()
    for corner in at[1:]:
        page.mouse.move(*corner, steps=3)
    page.mouse.up()
    api.expect(page.locator(".map-list .image").first).to_be_visible()


def test_errors_say_what_to_do(browser: api.Browser, address: str) -> None:
    one = Watched(browser, "desk")
    page = one.page
    page.route("**/v1/search", lambda route: route.fulfill(
        status=429, headers={"Retry-After": "1"}, content_type="application/problem+json",
        body='{"detail": "full"}'), times=1)  # fmt: skip
    page.goto(address + "?image=1")
    api.expect(page.get_by_role("alert")).to_contain_text("Try again in a second")
    hits(page)  # it does so itself
    page.goto(address + "?image=123456")
    api.expect(page.get_by_role("alert")).to_contain_text("123456")
    page.route("**/v1/search", lambda route: route.abort())
    page.goto(address + "?image=2")
    api.expect(page.get_by_role("alert")).to_contain_text("does not answer")
    one.context.close()


def test_a_key_is_asked_for_once(browser: api.Browser, address: str) -> None:
    one = Watched(browser, "phone")
    page = one.page
    refused = '{"detail": "no key"}'

    def guard(route: api.Route) -> None:
        if route.request.headers.get("authorization") == "Bearer s3cret":
            route.continue_()
        else:
            route.fulfill(status=401, content_type="application/problem+json", body=refused)

    page.route("**/v1/**", guard)
    page.goto(address)
    page.get_by_label("opened with a key").fill("wrong")
    page.keyboard.press("Enter")
    api.expect(page.locator("dialog")).to_contain_text("not known here")
    page.get_by_label("opened with a key").fill("s3cret")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Search with an image of jug").click()
    hits(page)
    page.reload()
    hits(page)
    until(page, "document.querySelector('.hit img').naturalWidth > 0")
    assert page.locator("dialog").count() == 0
    assert not [e for e in one.errors if "401" not in e]
    one.context.close()


VIEWS = (
    "",
    "photo",
    "?image=1&box=0.1,0.1,0.8,0.9&f.place=shop",
    "?like=jug",
    "?view=gallery",
    "?view=gallery&object=jug",
    "?view=gallery&tab=doubtful",
    "?view=map",
)


def test_no_serious_fault_for_those_who_cannot_see(
    browser: api.Browser, address: str, pictures: Path
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found: list[str] = []
    for scheme, size in (("light", "desk"), ("dark", "phone")):
        one = Watched(browser, size, scheme)
        page = one.page
        offers(page, address)
        for view in VIEWS:
            page.goto(address + view.replace("photo", ""))
            if view == "photo":
                choose(page, photo(pictures))
                hits(page)
                page.keyboard.press("r")
                page.locator(".notice").wait_for()
            page.wait_for_load_state("networkidle")
            for fault in axe.run(page).response["violations"]:
                if fault["impact"] in ("serious", "critical"):
                    where = [node["target"] for node in fault["nodes"]][:3]
                    found.append(f"{scheme} {size} {view}: {fault['id']} {where}")
        assert one.errors == []
        one.context.close()
    assert found == []


def test_small_and_without_help_from_elsewhere(watched: Watched, address: str) -> None:
    page = watched.page
    sizes: dict[str, int] = {}

    def weigh(answer: api.Response) -> None:
        if "/thumbnail" not in answer.url:
            sizes[answer.url] = len(answer.body())

    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.on("requestfinished", lambda r: weigh(r.response()))
    page.goto(address)
    page.wait_for_load_state("networkidle")
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)
    assert 20_000 < sum(sizes.values()) < 200_000, sizes


def test_modules_stay_small() -> None:
    for path in PAGE.iterdir():
        lines = path.read_text().splitlines()
        assert len(lines) < 300, path
        if path.suffix == ".html":
            assert "<style" not in path.read_text() and " style=" not in path.read_text()
