"""The engine for a gallery on Qdrant: a server or cluster, or a folder of one process.

    qdrant:http://host:6333/NAME        qdrant:FOLDER

Images are points, their records are payloads: one collection for each generation (the embedder
whose vectors it has), NAME-1, NAME-2, ..., and NAME is an alias of the one in use. Objects, sums,
roots, settings and what was left out are points without vectors in NAME-book. Writes are
all-or-nothing by an intent that is written first (`qdrant_writer`); what another one left half
done is brought to its end when a gallery is opened, and before anything is written.

A server needs 1.16 or later; a key is taken from QDRANT_API_KEY.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from resight.errors import UserError
from resight.search.engines.contract import Near, Writer
from resight.search.engines.nearness import ordered
from resight.search.engines.qdrant_applying import META, apply, forget, read_back, write_down
from resight.search.engines.qdrant_link import LOCK, Link, where
from resight.search.engines.qdrant_reading import QdrantReader
from resight.search.engines.qdrant_search import nearest
from resight.search.engines.qdrant_writer import QdrantWriter

FORMAT = 1


def split_name(address: str) -> tuple[str, str]:
    """Where Qdrant is, and the gallery's name ("gallery" in a folder)."""
    rest = address.removeprefix("qdrant:")
    if not rest.startswith(("http://", "https://")):
        return str(Path(rest).absolute()), "gallery"
    parts = urlsplit(rest)
    path, _, name = parts.path.rpartition("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", "")), name or "gallery"


class QdrantEngine(QdrantReader):
    """A gallery in collections of a Qdrant. `create` False: it has to be there."""

    filters = False  # `nearest` takes none

    def __init__(self, address: str, *, create: bool = True, wait: float = 60.0):
        self.name = address
        location, base = split_name(address)
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.]*", base):
            raise UserError(
                f"{address}: {base!r} can't name a gallery; take letters, digits, _ and ."
            )
        if not location.startswith("http") and not create and not Path(location).is_dir():
            raise UserError(f"{address}: no gallery is there")
        super().__init__(Link(location, f"{base}-book", address, wait), base)
        try:
            self._prepare(create)
        except BaseException:
            self._link.close()
            raise

    def _prepare(self, create: bool) -> None:
        link = self._link
        with link.using() as client:
            there = client.collection_exists(link.book)
        if there and link.local and link.first:
            link.delete(link.book, [LOCK])  # of a process that is no more
        if not there:
            if not create:
                raise UserError(f"{self.name}: no gallery is there")
            self._make_book()
        if not link.get(link.book, [META]):
            with self._leased("a new gallery"):
                if not link.get(link.book, [META]):
                    link.put(link.book, [_point(META, _fresh_state())])
        found = self._state()["format"]
        if found != FORMAT:
            raise UserError(
                f"{self.name}: made by another version of resight (format {found}, this one reads "
                f"{FORMAT}); install that version, or copy the gallery with it"
            )
        if read_back(link) is not None:
            with self._leased("finishing a change"):
                self._finish_other()

    def _make_book(self) -> None:
        with self._link.using() as client:
            client.create_collection(self._link.book, vectors_config={})
        numbers = ("id", "object", "generation", "changed", "version")
        self._link.index(self._link.book, ("kind", "token"), numbers)

    @contextmanager
    def _leased(self, who: str) -> Iterator[str]:
        token = self._link.take(who)
        try:
            yield token
        finally:
            self._link.give(token)

    def _finish_other(self) -> None:
        """What another one wrote down and did not finish; parts without a head go away."""
        change = read_back(self._link)
        if change is not None and change["state"]["version"] > self.version():
            apply(self._link, self._base, change)
        elif self._count(self._link.book, where(kind="intent")):
            forget(self._link)

    @contextmanager
    def writing(self, who: str) -> Iterator[Writer]:
        """See the contract."""
        with self._leased(who) as token:
            self._finish_other()
            writer = QdrantWriter(self._link, self._base, self._state())
            yield writer
            change = writer.finish()
            self._link.renew(token, who)
            write_down(self._link, change)
            apply(self._link, self._base, change)

    def destroy(self) -> None:
        """Remove the gallery with all its collections; for tests."""
        with self._link.using() as client:
            for one in client.get_collections().collections:
                if re.fullmatch(rf"{re.escape(self._base)}-(book|[0-9]+(-objects)?)", one.name):
                    client.delete_collection(one.name)

    def nearest(
        self,
        queries: NDArray[np.float32],
        fetch: int,
        *,
        level: str = "image",
        exact: bool = False,
    ) -> list[Near]:
        """The nearest of each query (Q, D), found by Qdrant and compared again in float64.

        `level`: "image", keys are ids of images; "object", keys are ids of objects, and minus the
        ids of images of no object.
        """
        if self._images() is None:
            return [ordered(query, [], fetch) for query in queries]
        return nearest(self._link, self._base, self.generation(), queries, fetch, level, exact)

    def close(self) -> None:
        """See the contract."""
        self._link.close()


def _point(id_: str, payload: dict[str, Any]) -> Any:
    return models.PointStruct(id=id_, vector={}, payload=payload)


def _fresh_state() -> dict[str, Any]:
    return {
        **{"kind": "meta", "format": FORMAT, "version": 0, "generation": 1, "known_since": 0},
        **{"last": {"images": 0, "objects": 0, "roots": 0}, "dims": {}, "roots": []},
        "values": "{}",
    }
