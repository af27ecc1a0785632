"""A connection to Qdrant: one client a place, errors as one line, a lease for the writer.

Qdrant has no locks. The writer holds a lease: a record with its name and a time, which another
one may replace only when that time is past. Replacing is one conditional update on the server
(Qdrant 1.16 or later), so two writers can't both have it. Clocks have to agree within seconds.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from resight.errors import UserError

LEASE = 60.0  # seconds after which a writer that was cut off no longer bars others
_NAMES = uuid.UUID("5b0f5e54-0c0d-4b0e-9f0e-7e5168740001")
_OPEN: dict[str, tuple[QdrantClient, threading.RLock, list[int]]] = {}
_GUARD = threading.Lock()


def key(*parts: object) -> str:
    """The id of a record: the same parts, the same id."""
    return str(uuid.uuid5(_NAMES, "/".join(map(str, parts))))


LOCK = key("lock")


class Link:
    """A client, shared by all who open one place; `book` is the collection of records."""

    def __init__(self, location: str, book: str, name: str, wait: float):
        self.book, self.name, self._wait, self._location = book, name, wait, location
        self.local = not location.startswith(("http://", "https://"))
        with _GUARD, self.trouble():
            if location not in _OPEN:
                _OPEN[location] = (_client(location, self.local), threading.RLock(), [0])
            self.client, self.lock, self._users = _OPEN[location]
            self.first = self._users[0] == 0
            self._users[0] += 1
        self._closed = False
        self._held: tuple[str, str, float] | None = None  # our lease: token, who, since when

    def close(self) -> None:
        """Let go; the last one closes the client."""
        with _GUARD:
            if self._closed:
                return
            self._closed = True
            self._users[0] -= 1
            if not self._users[0]:
                _OPEN.pop(self._location, None)
                self.client.close()

    @contextmanager
    def trouble(self) -> Iterator[None]:
        """Qdrant's errors as one line that says what to do."""
        try:
            yield
        except ResponseHandlingException as error:
            raise UserError(
                f"{self.name}: can't be reached ({_line(error)}); is the server running, and is "
                "the address right?"
            ) from None
        except UnexpectedResponse as error:
            denied = error.status_code in (401, 403)
            what = "set QDRANT_API_KEY to a key that may write there" if denied else "see its log"
            raise UserError(f"{self.name}: Qdrant refuses ({_line(error)}); {what}") from None
        except RuntimeError as error:
            if "already accessed" not in str(error):
                raise
            raise UserError(
                f"{self.name}: another process has it open; a local Qdrant is for one process, run "
                "a server for more (qdrant:http://HOST:6333/NAME)"
            ) from None

    @contextmanager
    def using(self) -> Iterator[QdrantClient]:
        """The client; in local mode for one thread at a time."""
        with self.trouble():
            if self.local:
                with self.lock:
                    yield self.client
            else:
                yield self.client

    # Records ------------------------------------------------------------------------------

    def get(self, collection: str, ids: Sequence[Any], **how: Any) -> list[Any]:
        """Points by id, those that are there."""
        found: list[Any] = []
        for start in range(0, len(ids), 512):
            with self.using() as client:
                found += client.retrieve(collection, list(ids[start : start + 512]), **how)
        return found

    def pages(
        self, collection: str, where: Any = None, *, start: Any = None, page: int = 1024, **how: Any
    ) -> Iterator[list[Any]]:
        """All points that pass a filter, by id, page by page."""
        while True:
            with self.using() as client:
                points, start = client.scroll(
                    collection, scroll_filter=where, offset=start, limit=page, **how
                )
            if points:
                yield points
            if start is None:
                return

    def put(self, collection: str, points: Sequence[Any], size: int = 256) -> None:
        """Points, waited for, in batches."""
        for start in range(0, len(points), size):
            with self.using() as client:
                client.upsert(collection, list(points[start : start + size]), wait=True)
            self._beat()

    def delete(self, collection: str, ids: Sequence[Any]) -> None:
        """Forget points by id."""
        for start in range(0, len(ids), 1024):
            selector = models.PointIdsList(points=list(ids[start : start + 1024]))
            with self.using() as client:
                client.delete(collection, selector, wait=True)

    def index(self, collection: str, texts: Sequence[str], numbers: Sequence[str]) -> None:
        """Indexes over fields of payloads; local mode has none."""
        if self.local:
            return
        kinds = models.PayloadSchemaType
        for field in (*texts, *numbers):
            kind = kinds.KEYWORD if field in texts else kinds.INTEGER
            with self.using() as client:
                client.create_payload_index(collection, field, kind, wait=True)

    # The lease ----------------------------------------------------------------------------

    def take(self, who: str, wait: float | None = None) -> str:
        """The lease; its token. Raises UserError where another one holds it too long."""
        wait = self._wait if wait is None else wait
        token = uuid.uuid4().hex
        told = f"process {os.getpid()} on {socket.gethostname()} ({who})"
        start, said = time.monotonic(), False
        while True:
            held = self._holder()
            free = held is None or held["until"] < time.time()
            if free and self._replace(token, told, time.time() + LEASE, _before(time.time())):
                self._held = token, told, time.time()
                return token
            waited, holder = time.monotonic() - start, (held or {}).get("who", "another process")
            if waited > wait:
                raise UserError(
                    f"{self.name}: {holder} is writing; waited {waited:.0f} s, try again when it "
                    "is done"
                )
            if waited > 1 and not said:
                print(f"waiting for {holder}", file=sys.stderr)
                said = True
            time.sleep(0.005 if waited < 0.1 else 0.05)

    def renew(self, token: str, who: str) -> None:
        """The lease for longer. Raises UserError where it was lost meanwhile."""
        self._held = token, who, time.time()
        if not self._replace(token, who, time.time() + LEASE, _of(token)):
            raise UserError(
                f"{self.name}: writing took longer than {LEASE:.0f} s and another one has begun; "
                "nothing of this change was kept, run it again"
            )

    def _beat(self) -> None:
        """Keep the lease through a long change."""
        if self._held is not None and time.time() - self._held[2] > LEASE / 3:
            self.renew(*self._held[:2])

    def give(self, token: str) -> None:
        """The lease back, if it is still ours."""
        self._held = None
        self._replace(token, "", 0.0, _of(token))

    def _replace(self, token: str, who: str, until: float, only: models.Filter) -> bool:
        payload = {"kind": "lock", "token": token, "who": who, "until": until}
        with self.using() as client:
            client.upsert(
                self.book,
                [models.PointStruct(id=LOCK, vector={}, payload=payload)],
                wait=True,
                ordering=models.WriteOrdering.STRONG,
                update_filter=only,
            )
        held = self._holder()
        return held is not None and held["token"] == token

    def _holder(self) -> dict[str, Any] | None:
        points = self.get(self.book, [LOCK])
        return dict(points[0].payload) if points else None


def _before(now: float) -> models.Filter:
    return models.Filter(
        must=[models.FieldCondition(key="until", range=models.Range(lt=now))],
    )


def _of(token: str) -> models.Filter:
    return models.Filter(
        must=[models.FieldCondition(key="token", match=models.MatchValue(value=token))]
    )


def _client(location: str, local: bool) -> QdrantClient:
    if local:
        return QdrantClient(path=location, force_disable_check_same_thread=True)
    client = QdrantClient(
        url=location,
        api_key=os.environ.get("QDRANT_API_KEY"),
        timeout=60,
        check_compatibility=False,
    )
    version = client.info().version
    if tuple(int(part) for part in version.split("-")[0].split(".")[:2]) < (1, 16):
        raise UserError(f"qdrant:{location}: is version {version}; a gallery needs 1.16 or later")
    return client


def where(**fields: Any) -> models.Filter:
    """A filter: a value equal, a list of values any of them, `NAME__gt` greater."""
    must: list[Any] = []
    for name, value in fields.items():
        if name.endswith("__gt"):
            must.append(models.FieldCondition(key=name[:-4], range=models.Range(gt=value)))
        elif isinstance(value, list):
            must.append(models.FieldCondition(key=name, match=models.MatchAny(any=value)))
        else:
            must.append(models.FieldCondition(key=name, match=models.MatchValue(value=value)))
    return models.Filter(must=must)


def floats(values: Any) -> list[float]:
    """Numbers as the client takes them; float32 exactly."""
    found: list[float] = np.asarray(values, np.float32).tolist()
    return found


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
