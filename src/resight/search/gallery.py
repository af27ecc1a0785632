"""The gallery: what is searched. Kept on disk, live, at image and at object level."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from resight.data.addresses import to_open
from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.files import check_folder, fresh_folder, read_json, write_json
from resight.graph.rerank import Chain
from resight.graph.rerank import parse as parse_chain
from resight.search import editing, finding, remote
from resight.search.adding import Added, add_images
from resight.search.calibrating import STALE, Known, calibrate_gallery, kept
from resight.search.centroids import joined
from resight.search.engines.contract import Engine
from resight.search.engines.opening import DATABASE, open_engine
from resight.search.filters import parse
from resight.search.hits import Hit, Hits
from resight.search.index import KINDS
from resight.search.searching import Rerank, Search
from resight.search.transfer import copy_rows
from resight.search.verifying import Eyes, seeing, several
from resight.search.verifying import Photo as Seeing
from resight.search.views import Views

if TYPE_CHECKING:
    from PIL import Image

    from resight.features.options import EmbedOptions
    from resight.features.store import Features
    from resight.models.embedder import Embedder
    from resight.models.export.choose import Network

    Photo = str | Path | bytes | Image.Image

Level = Literal["image", "object", "both"]
LEVELS = ("image", "object")
RECORD, EMBEDDER = "gallery.json", "embedder"


class Gallery:
    """Images with their vectors, and the objects they stand for, searched by cosine similarity.

    level "image": one vector an image, hits grouped by object. level "object": one vector an
    object, the sum of its images' un-normalised features (CTL, section 3.3): the direction of
    their mean. Images of unknown objects stand alone. Both can be asked at any time; `level` is
    what a search takes when nothing else is said.

    `Gallery(embedder)` lives in memory until `save`; `create` and `open` are of one on disk,
    where every change is durable when the call returns. `runtime`: what embeds, "torch", "onnx" or
    "auto" (see `models.export.choose`).
    """

    def __init__(
        self,
        embedder: Network | None = None,
        level: str = "image",
        *,
        engine: Engine | None = None,
        folder: Path | None = None,
        runtime: str | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ):
        _check_level(level)
        from resight.search.engines.sqlite import SqliteEngine

        self.folder = folder
        self.engine: Engine = engine if engine is not None else SqliteEngine(None)
        self._embedder = embedder if embedder is None or embedder.runtime == "torch" else None
        self._network = embedder if self._embedder is None else None
        self.runtime, self._tell = runtime, tell
        self.device: str | None = None
        if "uuid" not in self.engine.meta():
            made = embedder.fingerprint() if embedder is not None else None
            with self.engine.writing("a new gallery") as writer:
                writer.set_meta(uuid=uuid.uuid4().hex, level=level, embedder=made)
        self.views = Views(self.engine, folder, tell)
        self.eyes = Eyes()
        self.added = Added()  # what the last `add` did
        self._kept: dict[str, tuple[int, Known | None]] = {}  # by level: at a version

    # Making and opening -------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | Path,
        embedder: Network | None = None,
        level: str = "image",
        *,
        engine: str | None = None,
        index: str = "auto",
        runtime: str | None = None,
        force: bool = False,
        tell: Callable[[str], None] = lambda line: None,
    ) -> Gallery:
        """A new, empty gallery with a copy of its embedder.

        `path`: a folder. `engine`: what keeps it, by default a file in the folder; else
        postgresql://... or qdrant:... (see `engines.opening`): then the folder holds the embedder,
        and the index that is derived. A gallery that is there already is kept as it is. `index`:
        auto, flat, ivf or hnsw. `runtime`: what embeds, see the class.

        Raises UserError when `path` holds something else (or a gallery, unless `force`), or the
        engine has the gallery of another embedder.
        """
        _check_level(level)
        if index not in KINDS:
            raise UserError(f"index {index!r} is none of {', '.join(KINDS)}")
        folder = Path(path).absolute()
        # A server is reached, or refused, before anything of the folder is replaced.
        opened = open_engine(engine) if engine is not None else None
        if _unfinished(folder):  # a create that was killed: nothing was ever in it
            shutil.rmtree(folder)
        fresh_folder(folder, "a gallery", mark=RECORD, force=force)
        folder.mkdir(parents=True, exist_ok=True)
        opened = opened or open_engine(str(folder / DATABASE))
        gallery = cls(embedder, level, engine=opened, folder=folder, runtime=runtime, tell=tell)
        made = opened.meta().get("embedder")
        if embedder is not None and made not in (None, embedder.fingerprint()):
            gallery.close()
            raise UserError(
                f"{engine}: holds the gallery of another embedder (fingerprints differ); give that "
                "one, or another name"
            )
        with opened.writing("a new gallery") as writer:
            writer.set_meta(index=index, place=str(folder) if engine is None else None)
        if embedder is not None:
            from resight.models.export.choose import carry

            embedder.save(folder / EMBEDDER)
            carry(embedder, folder / EMBEDDER)
        record = {"format": 2, "embedder": EMBEDDER} | ({"engine": engine} if engine else {})
        write_json(folder / RECORD, record)  # last: now it is one
        return gallery

    @classmethod
    def open(
        cls,
        path: str | Path,
        device: str | None = None,
        tell: Callable[[str], None] = lambda line: None,
        runtime: str | None = None,
    ) -> Gallery:
        """Open a gallery on disk; `runtime`: what embeds, see the class.

        Raises UserError when there is none, or it is damaged.
        """
        folder = Path(path).absolute()
        record = read_json(folder / RECORD, "a gallery (made by 'resight index')")
        if not isinstance(record, dict) or record.get("format") != 2:
            raise UserError(_older(Path(path), record))
        name = record.get("engine")
        if name is None and not (folder / DATABASE).is_file():
            raise UserError(f"{folder / DATABASE}: gone; index again (resight index ... --force)")
        engine = open_engine(str(name or folder / DATABASE), create=False)
        gallery = cls(None, engine=engine, folder=folder, runtime=runtime, tell=tell)
        gallery.device = device
        if name is None and engine.meta().get("place") != str(folder):
            gallery._moved_here()
        return gallery

    def _moved_here(self) -> None:
        """Roots whose photos were moved together with the gallery are found again."""
        before = self.engine.meta().get("place")
        with contextlib.suppress(UserError), self.engine.writing("a moved gallery") as writer:
            for root in self.engine.roots() if before else ():
                new = os.path.normpath(
                    os.path.join(str(self.folder), os.path.relpath(root.path, before))
                )
                if not os.path.isdir(root.path) and os.path.isdir(new):
                    writer.move_root(root.id, new)
            writer.set_meta(place=str(self.folder))

    load = open

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write a copy of this gallery as a folder.

        Raises UserError when `folder` holds something else (or a gallery, unless `force`).
        """
        folder = Path(folder).absolute()
        check_folder(folder, "a gallery", mark=RECORD, force=force)
        # Built beside and renamed: a folder of this name is always a whole gallery.
        building = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(building, ignore_errors=True)
        try:
            self.copy(building)
            fresh_folder(folder, "a gallery", mark=RECORD, force=force)
            if folder.exists():
                folder.rmdir()
            building.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return folder

    def copy(
        self,
        target: str | Path,
        *,
        engine: str | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> int:
        """Copy into a new folder, or go on with a copy; how many images there are.

        `engine`: what keeps the copy, as in `create`.

        Raises UserError when the folder holds something else, or what arrived is not what is here.
        """
        folder = Path(target)
        if (folder / RECORD).is_file():
            new = Gallery.open(folder)
        else:
            new = Gallery.create(folder, self.embedder, self.level, engine=engine)
        with new:
            return copy_rows(self.engine, new.engine, progress)

    def close(self) -> None:
        """Let go of the files."""
        self.engine.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # What it is ---------------------------------------------------------------------------

    @property
    def level(self) -> str:
        """What a search takes when nothing else is said: image or object."""
        return str(self.engine.meta()["level"])

    def __len__(self) -> int:
        """The number of vectors at its level: images, or objects (unknown ones stand alone)."""
        if remote.can_search(self.engine, None):  # its own index: nothing is read for this
            return self.engine.counts()[self.level == "object"]
        return len(self.views.get(self.level))

    @property
    def embedder(self) -> Embedder | None:
        """The embedder that filled it, read when first asked for."""
        if self._embedder is None:
            place = self._home() or (self._network.folder if self._network is not None else None)
            if place is not None:
                from resight.models.embedder import Embedder

                found = Embedder.load(place, self.device)
                self._require_filled_by(found.fingerprint(), place)
                self._embedder = found
        return self._embedder

    def _require_filled_by(self, fingerprint: str, place: Path) -> None:
        if self.engine.meta().get("embedder") not in (None, fingerprint):
            raise UserError(
                f"{place}: is not the embedder that filled this gallery (fingerprints differ); put "
                f"that one back, or 'resight gallery reembed {self.folder} MODEL'"
            )

    def network(self, images: int | None = None) -> Network:
        """What embeds photos for this gallery, by its `runtime`: its embedder, or the graph of it.

        With a graph that was made before torch isn't loaded. `images`: how many there are, None
        for many to come; kept for the next call.

        Raises UserError when there is no embedder.
        """
        if self._network is None:
            from resight.models.export.choose import for_use, saved_graph

            home = self._home()
            if home is not None and self._embedder is None:
                self._network = saved_graph(home, self.runtime, device=self.device)
                if self._network is not None:
                    self._require_filled_by(self._network.fingerprint(), home)
                    return self._network
            own = self.need_embedder()
            count = images if home is None else None
            found = for_use(own, self.runtime, images=count, home=home, tell=self._tell)
            if found is own and home is None:
                return own  # with more images it may be another
            self._network = found
        return self._network

    def _home(self) -> Path | None:
        """Where the embedder lies, if this gallery is on disk and has one."""
        if self.folder is None:
            return None
        place = self.folder / self.engine.meta().get("embedder_folder", EMBEDDER)
        return place if place.is_dir() else None

    def forget_embedder(self) -> None:
        """Read the embedder anew when it is next asked for."""
        self._embedder = self._network = None

    def need_embedder(self) -> Embedder:
        """The embedder. Raises UserError when there is none."""
        found = self.embedder
        if found is None:
            raise UserError("this gallery has no embedder: it takes features and vectors only")
        return found

    def calibrate(self, level: str | None = None, **how: Any) -> Known:
        """Learn from its own objects what is not in the gallery; see `calibrating`.

        Searches of this level then carry probabilities and p-values, and say "no match".

        Raises UserError: fewer than two known objects.
        """
        level = self.level if level is None else level
        _check_level(level)
        return calibrate_gallery(self.engine, level, **how)

    def info(self) -> dict[str, Any]:
        """Counts, settings, index, calibration, and where photos are expected."""
        meta = self.engine.meta()
        images, objects = self.engine.counts()
        index: dict[str, Any] = {"kind": "the engine's own"}
        if not remote.can_search(self.engine, None):
            view = self.views.get(self.level)
            index = view.base.info | {"since": view.changed}
        found: dict[str, Any] = {"gallery": str(self.folder or self.engine.name)}
        found |= {"level": meta["level"], "images": images, "objects": objects}
        found |= {"vectors": len(self), "dimensions": meta.get("dim", 0)}
        found |= {"version": meta["version"], "generation": meta["generation"]}
        found |= {"index": index}
        found |= {"roots": {root.name: root.path for root in self.engine.roots()}}
        found["calibrated"] = {
            level: known.record | {"stale": known.stale(images) > STALE}
            for level in LEVELS
            if (known := self.known(level)) is not None
        }
        if self.folder is not None:
            found["bytes"] = sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file())
        return found

    # Changing it --------------------------------------------------------------------------

    def add(
        self,
        source: ImageSet | Features | str | Path,
        *,
        duplicates: str = "skip",
        sync: bool = False,
        again: bool = False,
        options: EmbedOptions | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Gallery:
        """Add images (embedded here) or features: what is new or changed; `added` says what.

        `source`: an image set, features, or a path that `load_images` reads. `duplicates`: skip
        the same content, or keep it. `sync`: remove images that are gone from the source.
        `again`: take images that a person removed before.

        Raises UserError: no embedder to embed with, features of another length or embedder.
        """
        if duplicates not in ("skip", "keep"):
            raise UserError(f"duplicates {duplicates!r} is none of skip, keep")
        if isinstance(source, str | Path):
            from resight.data.sources import load_images

            source = load_images(source)
        if not isinstance(source, ImageSet):
            self._require_own(source)
        images = source if isinstance(source, ImageSet) else source.images
        folder = Path(os.path.abspath(images.root)) if sync else None
        self.added = add_images(
            self.engine,
            source,
            lambda count: self._network_for(count, options),
            duplicates=duplicates,
            again=again,
            sync=folder,
            options=options,
            progress=progress,
        )
        return self

    def _network_for(self, images: int, options: EmbedOptions | None) -> Network | None:
        """What embeds so many images with these options, if anything does."""
        if self._network is None and self._embedder is None and self._home() is None:
            return None
        if options is None or (not options.flip and options.scales == (1.0,)):
            return self.network(images)
        from resight.models.export.choose import for_use

        how: dict[str, Any] = {"images": images, "home": self._home(), "tell": self._tell}
        how |= {"flip": options.flip, "scales": options.scales}
        return for_use(self.need_embedder(), self.runtime, **how)

    def compact(self) -> tuple[int, int]:
        """Give unused room back, and build the index anew; bytes of the database before, after.

        Raises UserError for another engine than SQLite.
        """
        from resight.search.engines import sqlite_care
        from resight.search.engines.sqlite import SqliteEngine

        if not isinstance(self.engine, SqliteEngine):
            raise UserError(f"{self.engine.name}: its server does this by itself")
        sizes = sqlite_care.compact(self.engine)
        self.views.forget()
        self.views.get(self.level)
        return sizes

    def _require_own(self, features: Features) -> None:
        """Raise UserError when features are of another embedder, or of another length."""
        made = features.info.get("key", {}).get("embedder")
        own = self.engine.meta().get("embedder")
        if made is not None and own is not None and made != own:
            raise UserError(
                f"{features.images.source}: these features were not made by the gallery's embedder "
                f"(fingerprints differ); 'resight embed {self.folder or 'GALLERY'} IMAGES' makes "
                "them with it, 'resight gallery reembed' gives the gallery another"
            )
        dim = self.engine.meta().get("dim")
        if dim is not None and features.shape[1] != dim:
            raise UserError(
                f"these features have {features.shape[1]} dimensions, the gallery's {dim}: they "
                "are of another embedder"
            )

    def remove(self, images: Collection[int | str | Path]) -> int:
        """Remove images by id or path; how many. A later `add` leaves their files out."""
        return editing.remove(self.engine, self.find(images))

    def remove_object(self, object: str) -> int:
        """Remove an object with all its images; how many these were."""
        return editing.remove(self.engine, finding.of_object(self.engine, object))

    def move(self, images: Collection[int | str | Path], to: str | None) -> int:
        """Give images to another object (None: unknown), by id or path; how many."""
        return editing.move(self.engine, self.find(images), to)

    def rename(self, object: str, to: str) -> int:
        """Give all images of an object to another, or to a new name; how many."""
        return editing.move(self.engine, finding.of_object(self.engine, object), to)

    def choose(
        self,
        images: Collection[int | str | Path] = (),
        object: str | None = None,
        where: str | None = None,
    ) -> list[int]:
        """Ids of the images given, of an object's, and of those that pass a filter.

        Raises UserError when nothing is asked for, or something that is not here.
        """
        if not images and object is None and where is None:
            raise UserError("nothing is named: give images by path, --object or --where")
        ids = self.find(images)
        ids += finding.of_object(self.engine, object) if object is not None else []
        return sorted({*ids, *(finding.passing(self.engine, where) if where is not None else ())})

    def move_root(self, root: str, folder: str | Path) -> tuple[int, int]:
        """Tell the gallery that a folder of photos has moved: see `finding.move_root`."""
        return finding.move_root(self.engine, root, folder)

    def find(self, images: Collection[int | str | Path]) -> list[int]:
        """Ids of images given by id or path. Raises UserError naming the first that is not here."""
        return finding.by_id_or_path(self.engine, images)

    # Searching ----------------------------------------------------------------------------

    def search(
        self,
        photos: Photo | Sequence[Photo],
        k: int = 10,
        *,
        together: bool = False,
        region: tuple[float, float, float, float] | None = None,
        rerank: str | Rerank | None = None,
        **how: Any,
    ) -> list[Hits]:
        """The k best objects for each photo (path, encoded bytes or Pillow image).

        One `Hits` a photo, best first. `together`: all photos show one thing, and are one query.
        `region`: x1, y1, x2, y2 in pixels of the upright photo. `rerank`: a second look, by name:
        "aqe", "kreciprocal", "diffusion", "spatial", chains of them as "aqe+diffusion:n=5" (see
        docs/reranking.md). Further options as in `search_vectors`.

        Raises BadImage for a photo that can't be read, UserError when the gallery is empty.
        """
        given: list[Any] = [to_open(photo) for photo in several(photos)]
        embedder = self.network(1)
        chain = parse_chain(rerank) if isinstance(rerank, str) else rerank
        seen: list[list[Seeing]] | None = None
        if isinstance(chain, Chain) and chain.spatial is not None:
            seen = [[seeing(photo, region)] for photo in given]
            if together:
                seen = [[photo for line in seen for photo in line]]
        if region is not None:
            from resight.data.decode import decode

            given = [decode(photo, box=region) for photo in given]
        vectors = embedder.embed(given, normalize=False)
        if together and len(vectors):
            vectors = joined(vectors, [len(vectors)])
        return self.search_vectors(vectors, k, rerank=chain, photos=seen, **how)

    def search_vectors(
        self,
        queries: NDArray[np.float32],
        k: int = 10,
        *,
        level: str | None = None,
        where: str | None = None,
        exclude_cameras: Sequence[str] = (),
        exclude: Sequence[str | None] | None = None,
        rerank: str | Chain | Rerank | None = None,
        photos: Sequence[Sequence[Seeing]] | None = None,
        alpha: float | None = None,
    ) -> list[Hits]:
        """The k best objects for each query vector (Q, D), of any length.

        At image level an object is represented by its most similar image; at object level it is
        found by its centroid and shown by its first image; "both" shows its most similar image.
        `where`: a filter on columns, e.g. "price < 20 and camera != 'c3'". `exclude_cameras`:
        images of these are no answer, and no part of a centroid. `exclude`: for each query the
        path of an image that is no answer (the query itself). `rerank`: a second look, by name as
        in `search`, or a function, see `searching`; with "spatial" `photos`: for each query its
        pictures. `alpha`: the share of things not in the gallery that may be taken for a match,
        once the gallery is calibrated.

        Raises UserError: k < 1, queries of another length or not finite, a wrong filter.
        """
        level = self.level if level is None else level
        if level not in (*LEVELS, "both"):
            raise UserError(f"level {level!r} is none of image, object, both")
        wanted = parse(where) if where is not None else None
        cameras = tuple(exclude_cameras)
        chain = parse_chain(rerank) if isinstance(rerank, str) else rerank
        with self.views.lock:  # views change as the gallery does: one thread at a time
            known = self.known(level)
            search = Search(
                self.engine, self.views, level, wanted, cameras, chain, alpha, known, self.eyes
            )
            return search(queries, k, exclude, photos)

    def known(self, level: str) -> Known | None:
        """The calibration of a level, decoded once a version of the gallery."""
        version = self.engine.version()
        if self._kept.get(level, (None,))[0] != version:
            self._kept[level] = version, kept(self.engine, level)
        return self._kept[level][1]


def _unfinished(folder: Path) -> bool:
    """Whether a folder holds nothing but what `create` makes before it says that it is done."""
    if not folder.is_dir() or (folder / RECORD).exists():
        return False
    names = {path.name for path in folder.iterdir()}
    files = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", "writer.lock", EMBEDDER}
    return DATABASE in names and names <= files


def _check_level(level: str) -> None:
    if level not in LEVELS:
        raise UserError(f"level {level!r} is none of image, object")


def _older(path: Path, record: Any) -> str:
    level = record.get("level", "image") if isinstance(record, dict) else "image"
    return (
        f"{path}: a gallery of an earlier resight; make it anew from your photos: "
        f"resight index {path / EMBEDDER} IMAGES --out NEW_FOLDER --level {level}"
    )


__all__ = ["DATABASE", "EMBEDDER", "RECORD", "Gallery", "Hit", "Hits", "Level"]
