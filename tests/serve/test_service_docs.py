"""What docs/service.md says is run: its curl lines and its Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service import photo

PAGE = Path(__file__).resolve().parents[2] / "docs" / "service.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl_lines_and_python(folder: Path, served: Callable[..., Any], tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    lines = [
        li for part in re.findall(r"```bash\n(.*?)```", text, re.S) for li in part.splitlines()
    ]
    assert len(lines) >= 15
    for number, name in enumerate(("photo", "second", "new")):
        (tmp_path / f"{name}.jpg").write_bytes(photo(300 + number, format="JPEG"))
    address, _ = served(folder)
    for line in lines:
        status = f"{line} -w '\\n%{{http_code}}'".replace("curl -s", "curl -s --max-time 60")
        done = subprocess.run(
            ["bash", "-c", status],
            cwd=tmp_path,
            env=os.environ | {"URL": address},
            capture_output=True,
            text=True,
        )
        code = done.stdout.splitlines()[-1]
        assert done.returncode == 0 and code in ("200", "201", "204"), (line, done.stdout)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        exec(code, {"url": address})
    finally:
        os.chdir(before)


def test_every_limit_is_told() -> None:
    from resight.serve.settings import Settings

    text = PAGE.read_text(encoding="utf-8")
    for name in set(Settings.model_fields) - {"host", "port", "keys", "processes", "device"}:
        assert f"`{name}`" in text, name
