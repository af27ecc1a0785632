"""Changes of the gallery that come over the net; each is durable when its call returns."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

from resight.files import write_bytes
from resight.search import editing
from resight.search.engines.contract import Row
from resight.search.gallery import Gallery
from resight.serve.problems import Problem, missing
from resight.serve.uploads import Labels

FOLDER = "uploads"
# The format is read from the content; no client's name or ending is kept.
ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif"}
ENDINGS |= {"TIFF": "tif", "PPM": "ppm", "AVIF": "avif", "JPEG2000": "jp2"}


class Writing:
    """Changes a gallery; one at a time."""

    def __init__(self, gallery: Gallery) -> None:
        assert gallery.folder is not None
        self.gallery, self.folder = gallery, gallery.folder / FOLDER

    def add(self, photo: bytes, format: str, labels: Labels) -> tuple[Row, bool]:
        """Keep a photo that was decoded before, and add it: its row, and whether it was there.

        A photo whose content the gallery has is that image; of an unknown object it takes the
        name given now. Raises Problem for one that can't be used.
        """
        import polars as pl

        from resight.data.imageset import ImageSet, normalise
        from resight.features.compute import EmbedOptions

        content = hashlib.sha256(photo).hexdigest()
        known = self._known(content)
        if known is not None:
            if known.object is None and labels.object is not None:
                self.move(known.id, labels.object)
                known = self._known(content) or known
            return known, True
        path = self.folder / f"{content}.{ENDINGS.get(format, 'img')}"
        if not path.exists():
            write_bytes(path, photo)
        row: dict[str, Any] = {"path": [path.name]}
        row |= {"object": [labels.object], "camera": [labels.camera]}
        row |= {name: [value] for name, value in labels.columns.items()}
        images = ImageSet(normalise(pl.DataFrame(row)), self.folder, FOLDER)
        once = EmbedOptions(batch_size=1, workers=0)
        added = self.gallery.add(images, again=True, options=once).added
        found = self._known(content)
        if added.bad or found is None:
            with suppress(OSError):
                path.unlink()
            reason = added.bad[0][1] if added.bad else "can't be used"
            raise Problem(422, f"photo: {reason}")
        return found, bool(added.copies or added.conflicts)

    def _known(self, content: str) -> Row | None:
        """The whole picture with this content."""
        rows = self.gallery.engine.by_content([content])
        whole = [row for row in rows if row.place is None or row.place.box is None]
        return whole[0] if whole else None

    def move(self, image: int, object: str | None) -> Row:
        """Give an image to another object. Raises Problem 404."""
        engine = self.gallery.engine
        if not engine.rows([image]):
            raise missing(f"image {image}")
        editing.move(engine, [image], object)
        return engine.rows([image])[0]

    def remove(self, image: int) -> None:
        """Remove an image; its file too where it was uploaded. Raises Problem 404."""
        engine = self.gallery.engine
        rows = engine.rows([image])
        if not rows:
            raise missing(f"image {image}")
        editing.remove(engine, [image])
        place = rows[0].place
        roots = {root.id: root.path for root in engine.roots()}
        if place is not None and roots.get(place.root) == str(self.folder) and place.box is None:
            with suppress(OSError):
                (self.folder / place.path).unlink()
