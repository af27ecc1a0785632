"""What is in the gallery, as JSON: images, objects, columns, state."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from resight.files import strict_json
from resight.search.calibrating import STALE
from resight.search.engines.contract import Row
from resight.search.finding import passing, user_columns
from resight.search.gallery import LEVELS, Gallery
from resight.search.hits import Hit
from resight.search.where.tree import number_in
from resight.serve.problems import missing

Found = TypeVar("Found")
Json = dict[str, Any]
VALUES = 20


def thumbnail_url(image: int) -> str | None:
    """Where the small picture of an image is."""
    return f"/v1/images/{image}/thumbnail" if image else None


def image_json(row: Row) -> Json:
    """An image, without anything of the server's folders."""
    path = row.place.path if row.place is not None else ""
    box = list(row.place.box) if row.place is not None and row.place.box else None
    told: Json = {"image": row.id, "object": row.object, "camera": row.camera, "split": row.split}
    told |= {"box": box, "columns": strict_json(row.columns)}
    told |= {"width": row.width, "height": row.height, "thumbnail": thumbnail_url(row.id)}
    return told | {"name": path.rsplit("/", 1)[-1]}


def hit_json(hit: Hit) -> Json:
    """A hit."""
    told: Json = {"rank": hit.rank, "object": hit.object, "similarity": hit.similarity}
    told |= {"probability": hit.probability, "p_value": hit.p_value, "image": hit.image}
    told |= {"images": hit.images, "box": list(hit.box) if hit.box is not None else None}
    told |= {"camera": hit.camera, "columns": strict_json(hit.columns)}
    told |= {"score": hit.score, "inliers": hit.inliers, "photo": hit.photo}
    told |= {"matches": [list(line) for line in hit.matches]}
    return told | {"thumbnail": thumbnail_url(hit.image), "why": hit.why}


class Catalogue:
    """Reads a gallery. Lists are kept for as long as the gallery does not change."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, ...], tuple[int, Any]] = OrderedDict()

    def once(self, key: tuple[str, ...], make: Callable[[], Found]) -> Found:
        """What `make` gave at this version of the gallery."""
        version = self.gallery.engine.version()
        with self._lock:
            found = self._kept.get(key)
        if found is not None and found[0] == version:
            return found[1]  # type: ignore[no-any-return]
        made = make()
        with self._lock:
            self._kept[key] = (version, made)
            self._kept.move_to_end(key)
            while len(self._kept) > 16:
                self._kept.popitem(last=False)
        return made

    def row(self, image: int) -> Row:
        """An image. Raises Problem 404."""
        rows = self.gallery.engine.rows([image])
        if not rows:
            raise missing(f"image {image}")
        return rows[0]

    def images(self, where: str | None, offset: int, limit: int) -> Json:
        """A page of images, all or those that pass a filter. Raises UserError for a wrong one."""
        engine = self.gallery.engine
        if where is None:
            ids = self.once(("ids",), lambda: engine.ids())
        else:
            ids = self.once(("ids", where), lambda: passing(engine, where))
        return self._page(ids, offset, limit)

    def _page(self, ids: Sequence[int], offset: int, limit: int) -> Json:
        rows = self.gallery.engine.rows(ids[offset : offset + limit])
        images = [image_json(row) for row in rows]
        return page(len(ids), offset, limit) | {"images": images}

    def objects(self, like: str, offset: int, limit: int) -> Json:
        """A page of objects by name."""
        engine = self.gallery.engine
        named = self.once(("objects", like), lambda: engine.objects(like, 0, 10_000_000))
        some = named[offset : offset + limit]
        first = engine.covers([name for name, _ in some])
        found = [
            {"object": name, "images": count, "thumbnail": thumbnail_url(first.get(name, 0))}
            for name, count in some
        ]
        return page(len(named), offset, limit) | {"objects": found}

    def object(self, name: str, offset: int, limit: int) -> Json:
        """A page of an object's images. Raises Problem 404."""
        ids = self.gallery.engine.images_of(name)
        if not ids:
            raise missing("this object")
        return {"object": name} | self._page(ids, offset, limit)

    def state(self) -> Json:
        """Counts, model, calibration, columns."""
        engine = self.gallery.engine
        meta = engine.meta()
        images, objects = engine.counts()
        embedder = self.gallery.network()
        with self.gallery.views.lock:
            vectors = len(self.gallery)
        folder = self.gallery.folder
        told: Json = {"name": folder.name if folder is not None else "", "level": meta["level"]}
        told |= {"images": images, "objects": objects, "vectors": vectors}
        told |= {"dimensions": int(meta.get("dim", 0) or embedder.dim)}
        told["model"] = {
            "backbone": embedder.config.backbone,
            "size": list(embedder.preprocess.size),
            "dim": embedder.dim,
            "fingerprint": str(meta.get("embedder") or ""),
        }
        told["calibrated"] = {
            level: {
                "alpha": known.record["alpha"],
                "objects": known.record["objects"],
                "smallest_alpha": known.record["smallest_alpha"],
                "stale": known.stale(images) > STALE,
            }
            for level in LEVELS
            if (known := self.gallery.known(level)) is not None
        }
        return told | {"columns": self.once(("columns",), self._columns)}

    def _columns(self) -> list[Json]:
        """What filters can ask for, with the most frequent values."""
        engine = self.gallery.engine
        names = user_columns(engine)
        table = engine.table(["camera", "split", *names])
        told = []
        for name in ("camera", "split", *names):
            values = [v for v in table.get(name, ()) if isinstance(v, str | int | float)]
            if not values:
                continue
            # As filters read them: a CSV file's "12.50" is a number.
            number = all(not isinstance(v, bool) and number_in(str(v)) is not None for v in values)
            common = [value for value, _ in Counter(values).most_common(VALUES)]
            kind = "number" if number else "text"
            told.append({"name": name, "kind": kind, "values": strict_json(common)})
        return told


def page(total: int, offset: int, limit: int) -> Json:
    """What stands at the head of a page of a list."""
    following = offset + limit
    return {"total": total, "next": following if following < total else None}
