"""The page in a real browser, at the size of a desk and of a phone."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
from browsing import (
    NAMES,
    Watched,
    address,
    api,
    browser,
    choose,
    hits,
    images,
    photo,
    pictures,
    until,
    watched,
)

__all__ = ["address", "browser", "pictures", "watched"]  # fixtures

PAGE = Path(__file__).parents[2] / "src/resight/serve/page"


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
