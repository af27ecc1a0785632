"""A service in this process, and what tests send to it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def photo(number: int, side: int = 48, format: str = "PNG") -> bytes:
    """A picture of noise, another one for each number."""
    rng = np.random.default_rng([11, number])
    blocks = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((side // 4, side // 4, 1)))
    file = io.BytesIO()
    Image.fromarray(blocks.astype(np.uint8)).save(file, format)
    return file.getvalue()


@contextmanager
def client_of(folder: Path, keys: str = "", **settings: Any) -> Iterator[Any]:
    """A test client of a running application; `keys`: the text of a file of keys."""
    from starlette.testclient import TestClient

    from resight.serve.app import create_app
    from resight.serve.settings import Settings

    if keys:
        path = folder.parent / "keys.txt"
        path.write_text(keys)
        settings["keys"] = path
    told = Settings(**({"decoders": 1, "deadline": 60.0, "decode_seconds": 30.0} | settings))
    app = create_app(folder, told)
    url = "http://localhost"
    with TestClient(app, base_url=url, raise_server_exceptions=True) as client:
        yield client


def line(role: str, key: str) -> str:
    """A line of a file of keys."""
    return f"{role} {hashlib.sha256(key.encode()).hexdigest()} {role}\n"


KEYS = {role: f"rs_{role}" for role in ("search", "write", "admin")}
ALL_KEYS = "".join(line(role, key) for role, key in KEYS.items())


def bearer(role: str) -> dict[str, str]:
    """The header that goes with a role's key; none for ""."""
    return {"Authorization": f"Bearer {KEYS[role]}"} if role else {}


def send(client: Any, content: bytes, path: str = "/v1/search", **fields: Any) -> Any:
    """A photo in a form."""
    headers = fields.pop("headers", None)
    return client.post(path, files={"photo": ("p", content)}, data=fields, headers=headers)


def is_problem(response: Any, *statuses: int) -> bool:
    """Whether it is a problem with one of these statuses, and tells nothing of the inside."""
    told = response.json()
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert response.status_code in statuses, response.text
    assert told["status"] == response.status_code
    assert set(told) == {"type", "title", "status", "detail", "request"}
    assert "Traceback" not in response.text and "/tmp" not in response.text
    assert "\n" not in told["detail"]
    assert told["request"] == response.headers["x-request-id"]
    return True
