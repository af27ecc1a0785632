"""resight: find the same thing again.

Public names are imported on first use, so that `import resight` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resight.data.imageset import ImageSet as ImageSet
    from resight.data.sources import load_images as load_images
    from resight.errors import UserError as UserError
    from resight.evaluate.run import measure as measure
    from resight.evaluate.scores import Scores as Scores
    from resight.features.store import Features as Features
    from resight.features.write import embed_images as embed_images
    from resight.models.embedder import Embedder as Embedder
    from resight.search.gallery import Gallery as Gallery

__version__ = "0.1.0"

_HOME = {
    "Embedder": "resight.models.embedder",
    "Features": "resight.features.store",
    "Gallery": "resight.search.gallery",
    "ImageSet": "resight.data.imageset",
    "Scores": "resight.evaluate.scores",
    "UserError": "resight.errors",
    "embed_images": "resight.features.write",
    "load_images": "resight.data.sources",
    "measure": "resight.evaluate.run",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'resight' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
