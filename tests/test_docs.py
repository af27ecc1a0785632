"""The site: each page is in its menu, each public name in the reference, no link is dead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

import resight
import resight.losses

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SITE: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def leaves(menu: Any) -> list[str]:
    if isinstance(menu, str):
        return [menu]
    inner = menu.values() if isinstance(menu, dict) else menu
    return [leaf for one in inner for leaf in leaves(one)]


def test_every_page_is_in_the_menu_once() -> None:
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert sorted(leaves(SITE["nav"])) == sorted(pages)


def test_every_public_name_is_in_the_reference_once() -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: resight\.(\w+)$", text, re.M)
    assert sorted(shown) == sorted({*resight.__all__, "losses"} - {"__version__"})
    losses = re.findall(r"^::: resight\.losses\.(\w+)$", text, re.M)
    assert sorted(losses) == sorted(resight.losses.__all__)


def test_links_lead_somewhere() -> None:
    dead = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
            if not (page.parent / target).exists():
                dead.append(f"{page.name}: {target}")
    assert not dead


def test_the_site_asks_nobody() -> None:
    """No fonts, scripts or counters from elsewhere."""
    assert SITE["theme"]["font"] is False and SITE["extra"] == {"generator": False}
    assert set(map(str, SITE["plugins"][:-1])) == {"search"}  # offline brings a script of a host
    assert list(SITE["plugins"][-1]) == ["mkdocstrings"]
    assert SITE["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["inventories"] == []
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "http:" not in text and "https:" not in text
