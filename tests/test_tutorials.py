"""The tutorials work: what stands in their blocks is run, in order, on rendered pictures."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from command import TINY, resight

PAGES = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
NETWORK = "--weights none --size 32 --workers 0"
# What is changed, so that a page takes seconds: fewer and smaller pictures, the smallest network.
SHORTER = {
    r"^demo-data .*": r"\g<0> --objects 16 --pictures 5 --pixels 32 --workers 1",
    r"^fit auto (.*)": rf"fit {TINY} \1 {NETWORK}",
    r"^train .*": rf"\g<0> --backbone {TINY} {NETWORK}",
    r"--minutes \d+": "--minutes 0.02",
    r"(train loose) --minutes \S+": r"\1 --epochs 1 --set stages=[{}] --set steps=2",
    r"--steps \d+": "--steps 2",
    r"--set ids=16": "--set ids=4",
    r"^(?:evaluate|index) .*": r"\g<0> --workers 0",
}
IN_PYTHON = {
    "steps=100,": f'steps=2, backbone="{TINY}", weights="none", size=32, workers=0,',
    '"ids": 16': '"ids": 4',
    "(0, 1)": "(0,)",
    "cross_camera=True)": "cross_camera=True, workers=0)",
}


def blocks(page: str) -> list[tuple[str, str]]:
    """("resight", words) and ("python", code) in their order."""
    text = (PAGES / page).read_text(encoding="utf-8")
    found = []
    for code, line in re.findall(
        r"^```python\n(.*?)^```|^    resight ([^\n]+)$", text, re.M | re.S
    ):
        found += [("python", code)] if code else [("resight", line)]
    return found


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_a_page_does_what_it_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, object] = {}
    ran = {"resight": 0, "python": 0}
    for kind, text in blocks(page):
        ran[kind] += 1
        if kind == "resight":
            for pattern, other in SHORTER.items():
                text = re.sub(pattern, other, text)
            status = resight(*shlex.split(text))
            assert status == 0, f"resight {text}: {capfd.readouterr().err}"
            continue
        for old, new in IN_PYTHON.items():
            text = text.replace(old, new)
        if title := re.match(r"# (\w+\.py)\n", text):
            (tmp_path / title[1]).write_text(text)
        exec(compile(text, page, "exec"), names)
    assert ran["resight"] >= 4 and ran["python"] >= 2
    for made in re.findall(r"(?:--sheet|--out) (\S+)", " ".join(text for _, text in blocks(page))):
        assert (tmp_path / made).exists(), made
    sys.modules.pop("my_loss", None)
