"""axe-core over every view: nothing serious is wrong for those who see or move otherwise."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from browsing import (
    Watched,
    address,
    api,
    browser,
    choose,
    doubt,
    hits,
    photo,
    pictures,
)

__all__ = ["address", "browser", "pictures"]  # fixtures


VIEWS = (
    "",
    "photo",
    "?image=1&box=0.1,0.1,0.8,0.9&f.place=shop",
    "?like=jug",
    "?view=gallery",
    "?view=gallery&object=jug",
    "?view=gallery&tab=doubtful",
    "?view=map",
    "?view=reports",
    "report",
)


WAYS = {"photo": "", "report": "?view=reports&report={}"}
# What must be there before it is looked at.
SHOWN = {
    "": ".samples img",
    "photo": ".hit",
    "?view=gallery": ".object",
    "?view=gallery&object=jug": ".image",
    "?view=gallery&tab=doubtful": ".pair",
    "?view=map": ".map-legend li",
    "?view=reports": ".report",
    "report": "iframe",
}
# All rules are run; what passed them is not described, which would take most of the time. A report
# is a page of its own, in a frame that no script gets into.
ONLY_FAULTS = {"resultTypes": ["violations"], "iframes": False}


def test_no_serious_fault_for_those_who_cannot_see(
    browser: api.Browser, address: str, pictures: Path
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found: list[str] = []
    for scheme, size in (("light", "desk"), ("dark", "phone")):
        one = Watched(browser, size, scheme)
        page = one.page
        doubt(page, address)
        reports = httpx.get(address + "v1/reports").json()["reports"]
        for view in VIEWS:
            page.goto(address + WAYS.get(view, view).format(reports[0]["report"]))
            if view == "photo":
                choose(page, photo(pictures))
                hits(page)
                page.keyboard.press("r")
                page.locator(".notice").wait_for()
            page.locator(SHOWN.get(view, "main h1")).first.wait_for()
            for fault in axe.run(page, options=ONLY_FAULTS).response["violations"]:
                if fault["impact"] in ("serious", "critical"):
                    where = [node["target"] for node in fault["nodes"]][:3]
                    found.append(f"{scheme} {size} {view}: {fault['id']} {where}")
        assert not [error for error in one.errors if "sandboxed" not in error]  # a report's script
        one.context.close()
    assert found == []
