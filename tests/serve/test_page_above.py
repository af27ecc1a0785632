"""The page's views of a gallery from above: map, doubtful images, reports; and re-ranking."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from browsing import (
    NAMES,
    Watched,
    address,
    api,
    browser,
    doubt,
    hits,
    images,
    pictures,
    still_life,
    until,
    watched,
)
from tests.spatial.scenes import scene, warped

from resight.search.gallery import Gallery

__all__ = ["address", "browser", "pictures", "watched"]  # fixtures


Json = dict[str, Any]


def test_doubtful_images_are_moved_and_back(watched: Watched, address: str) -> None:
    page = watched.page
    every = doubt(page, address)
    page.goto(address + "?view=gallery")
    page.get_by_role("link", name="Doubtful").click()
    pair = page.locator(".pair")
    api.expect(pair).to_have_count(1)
    api.expect(pair).to_contain_text("red mug")
    api.expect(pair).to_contain_text("0.991")
    api.expect(page.locator(".of-outliers > li")).to_have_count(3)
    pair.get_by_role("button", name=f"Move {every[5]['name']}", exact=True).click()
    page.get_by_label("It shows").fill("red mug")
    page.get_by_role("button", name="Move", exact=True).click()
    api.expect(page.locator(".pair")).to_have_count(0)
    assert httpx.get(address + f"v1/images/{every[5]['image']}").json()["object"] == "red mug"
    page.get_by_role("button", name="Undo").click()
    api.expect(page.locator(".pair")).to_have_count(1)
    assert httpx.get(address + f"v1/images/{every[5]['image']}").json()["object"] == "blue kettle"


def test_nothing_doubtful_and_while_it_is_compared(browser: api.Browser, address: str) -> None:
    one = Watched(browser, "phone")
    page, asked = one.page, []

    def answer(route: api.Route) -> None:
        asked.append(route.request.url)
        early = len(asked) <= 2
        told = {"total": 0, "next": None, "making": early, "current": not early, "usual": None}
        route.fulfill(json=told | {"kind": "pairs", "pairs": [], "outliers": []})

    page.route("**/v1/doubtful*", answer)
    page.goto(address + "?view=gallery&tab=doubtful")
    api.expect(page.get_by_role("heading", name="Comparing all images")).to_be_visible()
    api.expect(page.get_by_role("heading", name="Nothing stands out")).to_be_visible()
    assert one.errors == []
    one.context.close()


COLOURS = """() => {
    const canvas = document.querySelector(".map canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
}"""


def colours(page: api.Page) -> int:
    """How many different colours the map's canvas has."""
    found: int = page.evaluate(COLOURS)
    return found


def ring(page: api.Page, edge: float = 0.02) -> None:
    """Circle what lies within these edges of the map."""
    place = page.locator(".map canvas").bounding_box()
    corners = [(edge, edge), (1 - edge, edge), (1 - edge, 1 - edge), (edge, 1 - edge)]
    at = [(place["x"] + x * place["width"], place["y"] + y * place["height"]) for x, y in corners]
    page.mouse.move(*at[0])
    page.mouse.down()
    for corner in at[1:]:
        page.mouse.move(*corner, steps=3)
    page.mouse.up()


def test_the_map(watched: Watched, address: str) -> None:
    page = watched.page
    page.goto(address)
    page.get_by_role("link", name="Map").click()
    canvas = page.locator(".map canvas")
    canvas.wait_for()
    until(page, "document.querySelector('.map canvas').width > 0")
    page.get_by_role("button", name="Pictures").click()
    page.wait_for_timeout(200)
    plain = colours(page)
    assert plain > len(NAMES)  # a colour each, and their soft edges
    page.get_by_role("button", name="Pictures").click()
    until(page, f"({COLOURS})() > {10 * plain}")  # thumbnails are drawn
    page.get_by_label("Coloured by").select_option("place")
    page.wait_for_url("**by=place**")
    api.expect(page.locator(".map-legend li")).to_have_count(2)
    page.get_by_label("Coloured by").select_option("shelf")
    api.expect(page.locator(".map-legend li")).to_have_count(3)
    page.get_by_label("Coloured by").select_option("object")
    api.expect(page.locator(".map-legend li")).to_have_count(len(NAMES))
    canvas.focus()
    page.keyboard.press("+")
    page.wait_for_url("**at=**")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    api.expect(page.locator(".map-list .image")).to_have_count(4 * len(NAMES))
    page.get_by_role("button", name="Close").click()
    page.get_by_label("Show only names with").fill("KETTLE")
    page.wait_for_timeout(300)
    page.get_by_role("button", name="Circle some").click()
    ring(page)
    api.expect(page.locator(".map-list .image")).to_have_count(4)
    api.expect(page.locator(".map-list")).to_contain_text("blue kettle")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_is_circled_is_moved_and_removed(watched: Watched, address: str) -> None:
    page = watched.page
    before = images(address)
    added = []
    for shot in range(2):
        file = io.BytesIO()
        still_life(50, shot).save(file, "PNG")
        answer = httpx.post(
            address + "v1/images",
            data={"object": "jug"},
            files={"photo": ("more.png", file.getvalue())},
            timeout=60,
        )
        added.append(answer.json()["image"])
    points = [[0.1 * n, -0.1 * n, image] for n, image in enumerate(added)]
    told = {"making": False, "current": True, "method": "t-SNE", "images": 2, "by": "object",
            "columns": ["object"], "points": points, "names": ["jug"], "of": [0, 0],
            "values": None}  # fmt: skip
    page.route("**/v1/map*", lambda route: route.fulfill(json=told))
    page.goto(address + "?view=map")
    page.get_by_role("button", name="Circle some").click()
    ring(page, 0.01)
    api.expect(page.locator(".map-list .image")).to_have_count(2)
    page.get_by_role("button", name="Move all", exact=True).click()
    page.get_by_label("They show").fill("plate 7")
    page.get_by_role("button", name="Move", exact=True).click()
    api.expect(page.locator("#notices")).to_contain_text("2 images moved to plate 7")
    api.expect(page.locator(".map-list .image").first).to_contain_text("plate 7")
    page.keyboard.press("u")
    api.expect(page.locator(".map-list .image").first).to_contain_text("jug")
    page.get_by_role("button", name="Remove all").click()
    api.expect(page.locator(".map-list .image:visible")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    api.expect(page.locator(".map-list .image:visible")).to_have_count(2)
    assert images(address) == before + 2
    page.get_by_role("button", name="Remove all").click()
    page.get_by_role("button", name="Dismiss").click()
    api.expect(page.locator(".map-list")).to_contain_text("no longer in the gallery")
    assert images(address) == before


def test_fingers_on_the_map(browser: api.Browser, address: str) -> None:
    one = Watched(browser, "phone")
    page = one.page
    page.goto(address + "?view=map")
    page.locator(".map canvas").wait_for()
    until(page, "document.querySelector('.map canvas').width > 0")
    place = page.locator(".map canvas").bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    hand = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        told = [{"x": px, "y": py, "id": n} for n, (px, py) in enumerate(points)]
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": told})

    touch("touchStart", (x - 20, y), (x + 20, y))
    for step in range(1, 6):
        touch("touchMove", (x - 20 - 12 * step, y), (x + 20 + 12 * step, y))
    touch("touchEnd")
    page.wait_for_url("**at=**")
    scale = float(page.url.split("at=")[1].split("&")[0].replace("%2C", ",").split(",")[2])
    page.reload()  # the address holds what is looked at
    page.locator(".map canvas").wait_for()
    page.get_by_role("button", name="Whole map").click()
    page.wait_for_url(lambda url: f"%2C{scale:.0f}" not in url)
    whole = float(page.url.split("at=")[1].split("&")[0].replace("%2C", ",").split(",")[2])
    assert scale > 2.5 * whole
    assert one.errors == []
    one.context.close()


def test_before_there_is_a_map(browser: api.Browser, address: str) -> None:
    one = Watched(browser, "desk")
    page, asked = one.page, []
    empty: Json = {"making": True, "current": False, "method": None, "images": 0, "by": "object"}
    empty |= {"columns": ["object"], "points": [], "names": [], "of": [], "values": None}

    def answer(route: api.Route) -> None:
        asked.append(1)
        if len(asked) < 2:
            route.fulfill(json=empty)
        else:
            route.continue_()

    page.route("**/v1/map*", answer)
    page.goto(address + "?view=map")
    api.expect(page.get_by_role("heading", name="Laying out the map")).to_be_visible()
    page.locator(".map canvas").wait_for()
    assert one.errors == []
    one.context.close()


def test_reports(watched: Watched, address: str) -> None:
    page = watched.page
    page.goto(address)
    page.get_by_role("link", name="Reports").click()
    entry = page.locator(".report")
    api.expect(entry).to_have_count(1)
    for words in ("still lifes", "75.4", "70.0 – 80.0", "91.0", "objects: mAP 81.0", "8 queries"):
        api.expect(entry).to_contain_text(words)
    page.get_by_role("link", name="still lifes").click()
    page.wait_for_url("**report=**")
    frame = page.frame_locator("iframe")
    title = frame.locator("h1")
    api.expect(title).to_have_text("How it went")  # its script did not run, its colours hold
    assert title.evaluate("e => getComputedStyle(e).color") == "rgb(1, 2, 3)"
    assert page.evaluate("window.broken") is None
    page.go_back()
    api.expect(page.locator(".report")).to_have_count(1)
    blocked = [one for one in watched.errors if "script" in one.lower()]
    watched.errors[:] = [one for one in watched.errors if one not in blocked]
    assert blocked  # the browser says that it ran none


def test_pictures_are_as_large_as_they_are_shown(watched: Watched, address: str) -> None:
    page = watched.page
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.goto(address + "?image=1")
    hits(page)
    shown = "document.querySelector('.best img')"
    until(page, f"{shown}.naturalWidth > 0")
    large = page.evaluate(f"{shown}.clientWidth * devicePixelRatio") > 170
    if large:
        until(page, f"{shown}.naturalWidth === 220")  # as the photo is
    page.wait_for_load_state("networkidle")
    assert large == any(url.endswith("/picture") for url in asked)
    assert large == (page.viewport_size["width"] > 1000)


@pytest.fixture(scope="module")
def scenes(
    tmp_path_factory: pytest.TempPathFactory, embedder: Any, serving: Callable[..., Any]
) -> str:
    """A service of five scenes, the first of them seen twice, and one of noise."""
    folder = tmp_path_factory.mktemp("scenes")
    again = np.array([[0.9, -0.2, 40.0], [0.2, 0.9, -5.0], [0.0, 0.0, 1.0]])
    shown = [scene(0), warped(scene(0), again), *(scene(number) for number in range(1, 5))]
    for number, picture in enumerate(shown):
        place = folder / "photos" / f"scene {max(0, number - 1)}"
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{number}.png")
    with Gallery.create(folder / "gallery", embedder, "image") as gallery:
        gallery.add(folder / "photos")
    return str(serving(folder / "gallery", "--set", "deadline=60")[0]) + "/"


def test_reranking_and_matched_points(browser: api.Browser, scenes: str) -> None:
    one = Watched(browser, "desk")
    page = one.page
    asked: list[Json] = []

    def heard(request: api.Request) -> None:
        if request.url.endswith("/v1/search"):
            asked.append(json.loads(request.post_data or "{}"))

    page.on("request", heard)
    page.goto(scenes + "?image=1&level=image")
    hits(page)
    assert "rerank" not in asked[-1]
    order = page.get_by_label("Ordered by")
    api.expect(order.locator("option")).to_have_count(5)
    order.select_option("diffusion")
    page.wait_for_url("**rerank=diffusion**")
    hits(page)
    assert asked[-1]["rerank"] == "diffusion"
    show = page.get_by_role("button", name="points match")
    assert show.count() == 0
    order.select_option("spatial")
    page.wait_for_url("**rerank=spatial**")
    hits(page)
    show.first.wait_for()
    assert "scene 0" in (page.locator(".hit").first.text_content() or "")
    show.first.click()
    lines = page.locator("dialog .matches")
    api.expect(lines).to_be_visible()
    assert lines.evaluate("c => c.width > 200 && c.height > 100")
    found = lines.evaluate(
        """c => new Set(new Uint32Array(
            c.getContext("2d").getImageData(0, 0, c.width, c.height).data.buffer)).size"""
    )
    assert found > 500  # two pictures, and lines over them
    page.get_by_role("button", name="Close").click()
    page.goto(scenes + "?image=1&rerank=magic")  # of another service: not asked for
    hits(page)
    assert "rerank" not in asked[-1]
    one.context.close()
    assert one.errors == []


def test_no_switch_where_nothing_is_offered(browser: api.Browser, address: str) -> None:
    one = Watched(browser, "desk")
    told = httpx.get(address + "v1/gallery").json()
    told["offers"] = []
    one.page.route("**/v1/gallery", lambda route: route.fulfill(json=told))
    one.page.goto(address + "?image=1")
    hits(one.page)
    assert one.page.get_by_label("Ordered by").count() == 0
    for name in ("Map", "Reports"):
        api.expect(one.page.get_by_role("link", name=name)).to_be_hidden()
    one.context.close()
