"""The gallery: what is searched. Image level, or one centroid an object; exact."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import faiss
import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.checksums import file_sum, sums_in, verify
from resight.data.imageset import PLACE_KEY, ImageSet
from resight.data.places import with_moved
from resight.errors import UserError
from resight.features.store import Features
from resight.features.write import embed_images, require_made_by
from resight.files import (
    atomic_open,
    atomic_path,
    check_folder,
    fresh_folder,
    read_json,
    write_json,
)
from resight.models.embedder import Embedder

if TYPE_CHECKING:
    from PIL import Image

    Photo = str | Path | bytes | Image.Image

Level = Literal["image", "object"]
RECORD, ITEMS, VECTORS, EMBEDDER = "gallery.json", "items.parquet", "vectors.npy", "embedder"
_ITEM_SCHEMA = {
    "object": pl.String(),
    "path": pl.String(),
    "box": pl.List(pl.Float64()),
    "images": pl.Int64(),
}


@dataclass(frozen=True)
class Hit:
    """One answer: an object (None where unknown), its most similar image or an example image.

    `similarity` is the cosine, -1 to 1; `images` how many images stand behind the vector.
    """

    rank: int
    object: str | None
    similarity: float
    path: str
    box: tuple[float, float, float, float] | None
    images: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Gallery:
    """Vectors with the objects they stand for, searched by cosine similarity.

    level "image": one vector an image, hits grouped by object. level "object": one vector an
    object, the sum of its images' un-normalised features (CTL, section 3.3): the direction of
    their mean, so that images can be added at any time. Images of unknown objects stand alone.
    """

    def __init__(self, embedder: Embedder | None = None, level: Level = "image"):
        if level not in ("image", "object"):
            raise UserError(f"level {level!r} is none of image, object")
        self.embedder, self.level = embedder, level
        self.items = pl.DataFrame(schema=_ITEM_SCHEMA)
        self.vectors: NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._index: faiss.IndexFlatIP | None = None

    def __len__(self) -> int:
        """The number of vectors: images, or objects."""
        return self.items.height

    def add(self, images: ImageSet | Features) -> Gallery:
        """Add images (embedded here) or features; images that can't be used are left out.

        Raises UserError: no embedder to embed with, or features of another length or embedder.
        """
        if isinstance(images, ImageSet):
            images = embed_images(self._need_embedder(), images)
        if self.embedder is not None:
            require_made_by(images, self.embedder, "the gallery's")
        rows = np.flatnonzero(images.valid)
        vectors = np.asarray(images[rows], np.float32)
        if len(self) and vectors.shape[1] != self.vectors.shape[1]:
            raise UserError(
                f"these features have {vectors.shape[1]} dimensions, the gallery's "
                f"{self.vectors.shape[1]}: they are of another embedder"
            )
        table = images.images.table[rows]
        paths = [os.path.abspath(images.images.full_paths()[row]) for row in rows]
        new = table.select("object", "box").with_columns(
            pl.Series("path", paths, dtype=pl.String), pl.lit(1, pl.Int64).alias("images")
        )
        self.items = pl.concat([self.items, new.select(list(_ITEM_SCHEMA))])
        self.vectors = np.concatenate([self.vectors, vectors]) if len(self.vectors) else vectors
        if self.level == "object":
            self._merge()
        self._index = None
        return self

    def _merge(self) -> None:
        """One row an object, in the order in which the objects first came."""
        names = self.items["object"].to_list()
        keys: dict[object, int] = {}
        group = np.array(
            [
                keys.setdefault(row if name is None else name, len(keys))
                for row, name in enumerate(names)
            ]
        )
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0])
        # float64, so that a sum over thousands of images is as exact as one over two.
        sums = np.add.reduceat(self.vectors[order].astype(np.float64), starts, axis=0)
        counts = np.add.reduceat(self.items["images"].to_numpy()[order], starts)
        self.items = self.items[order[starts]].with_columns(pl.Series("images", counts))
        self.vectors = sums.astype(np.float32)

    def search(self, photos: Photo | Sequence[Photo], k: int = 10) -> list[list[Hit]]:
        """The k best objects for each photo (path, encoded bytes or Pillow image).

        One list of hits a photo, best first. Raises BadImage for a photo that can't be read,
        UserError when the gallery is empty.
        """
        return self.search_vectors(self._need_embedder().embed(photos), k)

    def search_vectors(
        self,
        queries: NDArray[np.float32],
        k: int = 10,
        *,
        exclude: Sequence[str | None] | None = None,
    ) -> list[list[Hit]]:
        """The k best objects for each query vector (Q, D), of any length.

        At image level an object is represented by its most similar image. `exclude`: for each
        query the path of an image that is no answer (the query itself), absolute, without "..".

        Raises UserError: an empty gallery, k < 1, queries of another length or not finite.
        """
        if not len(self):
            raise UserError("the gallery is empty; add images first")
        if k < 1:
            raise UserError(f"k = {k}: at least 1 hit must be asked for")
        if queries.shape[1] != self.vectors.shape[1]:
            raise UserError(
                f"the queries have {queries.shape[1]} dimensions, the gallery "
                f"{self.vectors.shape[1]}: they are of different embedders"
            )
        wrong = int((~np.isfinite(queries).all(axis=1)).sum())
        if wrong:
            raise UserError(f"{wrong} of the {len(queries)} queries are not finite numbers")
        index = self._built()
        queries = np.ascontiguousarray(queries, np.float32).copy()
        faiss.normalize_L2(queries)
        excluded = list(exclude) if exclude is not None else [None] * len(queries)
        results: list[list[Hit]] = [[] for _ in queries]
        todo, fetch = list(range(len(queries))), min(len(self), k + 8)
        while todo:  # more images are fetched until k different objects are among them
            similarities, rows = index.search(queries[todo], fetch)
            short = []
            for at, query in enumerate(todo):
                hits = self._group(rows[at], similarities[at], k, excluded[query])
                results[query] = hits
                if len(hits) < k and fetch < len(self):
                    short.append(query)
            todo, fetch = short, min(len(self), fetch * 4)
        return results

    def _group(
        self,
        rows: NDArray[np.int64],
        similarities: NDArray[np.float32],
        k: int,
        exclude: str | None,
    ) -> list[Hit]:
        hits: list[Hit] = []
        seen: set[str] = set()
        for row, similarity in zip(rows.tolist(), similarities.tolist(), strict=True):
            name, path, box, images = self.items.row(row)
            if name in seen or (self.level == "image" and path == exclude):
                continue
            if name is not None:
                seen.add(name)
            corners = tuple(box) if box is not None else None
            hits.append(Hit(len(hits) + 1, name, similarity, path, corners, images))
            if len(hits) == k:
                break
        return hits

    def _built(self) -> faiss.IndexFlatIP:
        if self._index is None:
            unit = self.vectors.copy()
            faiss.normalize_L2(unit)
            self._index = faiss.IndexFlatIP(unit.shape[1])
            self._index.add(unit)
        return self._index

    def _need_embedder(self) -> Embedder:
        if self.embedder is None:
            raise UserError("this gallery has no embedder: it takes features and vectors only")
        return self.embedder

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the gallery, with a copy of its embedder.

        Raises UserError when `folder` holds something else (or a gallery, unless `force`).
        """
        folder = Path(folder).absolute()
        check_folder(folder, "a gallery", mark=RECORD, force=force)
        # Built beside and renamed: a folder of this name is always a whole gallery, and an older
        # one stays until the new one is whole.
        building = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(building, ignore_errors=True)
        try:
            building.mkdir(parents=True)
            with atomic_open(building / VECTORS) as file:
                np.save(file, self.vectors, allow_pickle=False)
            with atomic_path(building / ITEMS) as temporary:
                self.items.write_parquet(temporary, metadata={PLACE_KEY: str(folder)})
            sums = {name: file_sum(building / name) for name in (VECTORS, ITEMS)}
            if self.embedder is not None:
                self.embedder.save(building / EMBEDDER)
            record: dict[str, Any] = {"format": 1, "level": self.level, "vectors": len(self)}
            record |= {"dim": int(self.vectors.shape[1]), "images": int(self.items["images"].sum())}
            record |= {"sums": sums}
            write_json(building / RECORD, record)
            fresh_folder(folder, "a gallery", mark=RECORD, force=force)
            if folder.exists():
                folder.rmdir()
            building.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return folder

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None) -> Gallery:
        """Open a saved gallery. Raises UserError when it is none, or is damaged."""
        folder = Path(folder)
        record = read_json(folder / RECORD, "a gallery (made by 'resight index')")
        has_embedder = (folder / EMBEDDER).is_dir()
        embedder = Embedder.load(folder / EMBEDDER, device) if has_embedder else None
        try:
            gallery = cls(embedder, record["level"])
            items = pl.read_parquet(folder / ITEMS, glob=False).select(list(_ITEM_SCHEMA))
            gallery.items = with_moved(items, folder / ITEMS)
            gallery.vectors = np.load(folder / VECTORS, allow_pickle=False)
            expected = (record["vectors"], record["dim"])
        except (
            KeyError,
            TypeError,
            OSError,
            ValueError,
            EOFError,
            pl.exceptions.PolarsError,
        ) as error:
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise UserError(f"{folder}: damaged gallery ({reason}); index again") from None
        if gallery.vectors.shape != expected or gallery.items.height != expected[0]:
            raise UserError(f"{folder}: damaged gallery (sizes differ); index again")
        verify(folder, sums_in(record), "index again (resight index ... --force)")
        return gallery
