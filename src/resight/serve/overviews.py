"""The overview of a gallery, made by another process while searches go on."""

from __future__ import annotations

import threading
from pathlib import Path

from resight.search.cache import FOLDER
from resight.search.engines.contract import Engine
from resight.search.overview import FILE, Overview, identity, load
from resight.serve.beside import Beside


class Overviews:
    """The overview of the gallery in `folder`, kept up to date by what is asked of it."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self._folder, self._engine = folder, engine
        self._lock = threading.Lock()
        self._kept: tuple[int, Overview] | None = None  # the file's time, and what it holds
        self._beside = Beside("overview", "resight.search.overview", rest=5.0)

    def get(self) -> tuple[Overview | None, bool]:
        """What there is, perhaps of the gallery as it was; and whether a newer one is made."""
        with self._lock:
            meta = self._engine.meta()
            found = self._load(identity(meta))
            running = self._beside.running()
            if not running and (found is None or found.told["version"] != meta["version"]):
                running = self._beside.start([str(self._folder)])
            return found, running

    def _load(self, of: dict[str, object]) -> Overview | None:
        try:
            when = (self._folder / FOLDER / FILE).stat().st_mtime_ns
        except OSError:
            return None
        if self._kept is None or self._kept[0] != when:
            found = load(self._folder, of)
            self._kept = (when, found) if found is not None else None
        if self._kept is None or any(self._kept[1].told.get(k) != v for k, v in of.items()):
            return None
        return self._kept[1]

    def close(self) -> None:
        """End the process, if one runs."""
        with self._lock:
            self._beside.close()
