"""A client of `resight serve`.

from resight.client import Client

with Client("http://127.0.0.1:8000") as client:
    found = client.search("photo.jpg", k=5)
    print(found["no_match"], [hit["object"] for hit in found["hits"]])
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

Photo = str | Path | bytes
Json = dict[str, Any]


class ServiceError(Exception):
    """What the service did not do. `status`, `detail` (one line) and `request`, the id in its log;
    `retry_after`: seconds, where it says when to try again."""

    def __init__(self, status: int, detail: str, request: str, retry_after: int | None = None):
        super().__init__(f"{status}: {detail}")
        self.status, self.detail, self.request = status, detail, request
        self.retry_after = retry_after


class Client:
    """Calls a service at `url`, with a key where it wants one. Answers are as in its OpenAPI.

    Every method raises ServiceError where the service says no, and httpx's errors where it can't
    be reached. Photos are paths or encoded bytes.
    """

    def __init__(self, url: str, key: str | None = None, timeout: float = 60.0):
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def gallery(self) -> Json:
        """Counts, model, calibration, columns, limits, and what this key may do."""
        return self._call("GET", "/v1/gallery")

    def search(
        self,
        photos: Photo | Sequence[Photo] | None = None,
        *,
        image: int | None = None,
        object: str | None = None,
        k: int = 10,
        level: str | None = None,
        where: str | None = None,
        exclude_cameras: Sequence[str] = (),
        region: tuple[float, float, float, float] | None = None,
        alpha: float | None = None,
        rerank: str | None = None,
    ) -> Json:
        """Search photos of one thing, or an image of the gallery by id, or an object by name."""
        fields: Json = {"k": k, "level": level, "where": where, "alpha": alpha, "rerank": rerank}
        fields |= {"exclude_cameras": list(exclude_cameras)}
        if photos is None:
            fields |= {"image": image, "object": object, "region": region}
            given = {name: value for name, value in fields.items() if value is not None}
            return self._call("POST", "/v1/search", json=given)
        if region is not None:
            fields["region"] = ",".join(map(str, region))
        several = [photos] if isinstance(photos, str | Path | bytes) else photos
        return self._form("/v1/search", fields, several)

    def add(
        self,
        photo: Photo,
        object: str | None = None,
        camera: str | None = None,
        columns: Json | None = None,
    ) -> Json:
        """Add a photo. It is durable when this returns; "known" says that it was there."""
        fields: Json = {"object": object, "camera": camera}
        fields["columns"] = json.dumps(columns) if columns else None
        return self._form("/v1/images", fields, [photo])

    def move(self, image: int, to: str | None) -> Json:
        """Give an image to another object; None: unknown."""
        return self._call("PATCH", f"/v1/images/{image:d}", json={"object": to})

    def remove(self, image: int) -> None:
        """Remove an image."""
        self._call("DELETE", f"/v1/images/{image:d}")

    def image(self, image: int) -> Json:
        """What is known of an image."""
        return self._call("GET", f"/v1/images/{image:d}")

    def thumbnail(self, image: int) -> bytes:
        """Its small picture, a JPEG."""
        return self._send("GET", f"/v1/images/{image:d}/thumbnail").content

    def picture(self, image: int) -> bytes:
        """Its picture, a JPEG of 480 pixels; the small one where the photo is gone."""
        return self._send("GET", f"/v1/images/{image:d}/picture").content

    def map(self, by: str = "object") -> Json:
        """Positions of all images, and the values of a column; "making": a newer one is made."""
        return self._call("GET", "/v1/map", params={"by": by})

    def doubtful(self, kind: str = "pairs", limit: int = 200, **how: Any) -> Iterator[Json]:
        """Pairs nearly equal (`least`: their similarity), or outliers; `limit` at a time."""
        return self._pages("/v1/doubtful", kind, {"kind": kind} | how, limit)

    def reports(self, limit: int = 200) -> Iterator[Json]:
        """The evaluations that the service shows, with their figures."""
        return self._pages("/v1/reports", "reports", {}, limit)

    def images(self, where: str | None = None, limit: int = 200) -> Iterator[Json]:
        """All images, or those that pass a filter, fetched `limit` at a time."""
        asked = {"where": where} if where is not None else {}
        yield from self._pages("/v1/images", "images", asked, limit)

    def objects(self, like: str = "", limit: int = 200) -> Iterator[Json]:
        """Objects whose name contains `like`."""
        yield from self._pages("/v1/objects", "objects", {"like": like}, limit)

    def images_of(self, object: str, limit: int = 200) -> Iterator[Json]:
        """The images of an object."""
        yield from self._pages(f"/v1/objects/{quote(object, safe='')}", "images", {}, limit)

    def feedback(
        self,
        hit: int,
        right: bool,
        *,
        photo: Photo | None = None,
        query_image: int | None = None,
        request: str | None = None,
    ) -> int:
        """Say of a hit that it is right or wrong, for a photo or an image; the answer's number."""
        answer = {"hit": hit, "right": right, "query_image": query_image, "request": request}
        if photo is None:
            return int(self._call("POST", "/v1/feedback", json=answer)["feedback"])
        fields = {"answer": json.dumps(answer)}
        return int(self._form("/v1/feedback", fields, [photo])["feedback"])

    def take_back(self, feedback: int) -> None:
        """Forget an answer."""
        self._call("DELETE", f"/v1/feedback/{feedback:d}")

    def _pages(self, path: str, name: str, asked: Json, limit: int) -> Iterator[Json]:
        offset: int | None = 0
        while offset is not None:
            page = self._call("GET", path, params=asked | {"offset": offset, "limit": limit})
            yield from page[name]
            offset = page["next"]

    def _form(self, path: str, fields: Json, photos: Sequence[Photo]) -> Json:
        data = {k: v if isinstance(v, list) else str(v) for k, v in fields.items() if v is not None}
        files = [
            ("photo", ("photo", _bytes(photo), "application/octet-stream")) for photo in photos
        ]
        return self._call("POST", path, data=data, files=files)

    def _call(self, method: str, path: str, **what: Any) -> Json:
        response = self._send(method, path, **what)
        found: Json = response.json() if response.content else {}
        return found

    def _send(self, method: str, path: str, **what: Any) -> httpx.Response:
        response = self._http.request(method, path, **what)
        if response.is_success:
            return response
        try:
            told = dict(response.json())
        except ValueError:
            told = {}
        wait = response.headers.get("retry-after", "")
        raise ServiceError(
            response.status_code,
            str(told.get("detail", response.reason_phrase)),
            str(told.get("request", "")),
            int(wait) if wait.isdigit() else None,
        )


def _bytes(photo: Photo) -> bytes:
    return photo if isinstance(photo, bytes) else Path(photo).read_bytes()
