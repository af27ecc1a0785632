"""resight: find the same thing again.

Public names are imported on first use, so that `import resight` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resight.api import Trained as Trained
    from resight.api import compare_evaluations as compare_evaluations
    from resight.api import evaluate_embedder as evaluate_embedder
    from resight.api import fit_embedder as fit_embedder
    from resight.api import load_protocol as load_protocol
    from resight.api import protocol_names as protocol_names
    from resight.api import train_embedder as train_embedder
    from resight.data.decode import BadImage as BadImage
    from resight.data.decode import decode as decode
    from resight.data.imageset import ImageSet as ImageSet
    from resight.data.sources import load_images as load_images
    from resight.errors import UserError as UserError
    from resight.evaluate.asking.answers import Verdict as Verdict
    from resight.evaluate.asking.answers import compare_answers as compare_answers
    from resight.evaluate.asking.make import ask as ask
    from resight.evaluate.protocols import Protocol as Protocol
    from resight.evaluate.records.compare import Comparison as Comparison
    from resight.evaluate.run import measure as measure
    from resight.evaluate.scores import Scores as Scores
    from resight.features.store import Features as Features
    from resight.features.write import embed_images as embed_images
    from resight.graph.second import rerank as rerank
    from resight.models.embedder import Embedder as Embedder
    from resight.models.open import open_embedder as open_embedder
    from resight.search.gallery import Gallery as Gallery
    from resight.search.hits import Hit as Hit
    from resight.search.hits import Hits as Hits

__version__ = "0.1.0"

_HOME = {
    "BadImage": "resight.data.decode",
    "Comparison": "resight.evaluate.records.compare",
    "Embedder": "resight.models.embedder",
    "Features": "resight.features.store",
    "Gallery": "resight.search.gallery",
    "Hit": "resight.search.hits",
    "Hits": "resight.search.hits",
    "ImageSet": "resight.data.imageset",
    "Protocol": "resight.evaluate.protocols",
    "Scores": "resight.evaluate.scores",
    "Trained": "resight.api",
    "UserError": "resight.errors",
    "Verdict": "resight.evaluate.asking.answers",
    "ask": "resight.evaluate.asking.make",
    "compare_answers": "resight.evaluate.asking.answers",
    "compare_evaluations": "resight.api",
    "decode": "resight.data.decode",
    "embed_images": "resight.features.write",
    "evaluate_embedder": "resight.api",
    "fit_embedder": "resight.api",
    "load_images": "resight.data.sources",
    "load_protocol": "resight.api",
    "measure": "resight.evaluate.run",
    "open_embedder": "resight.models.open",
    "protocol_names": "resight.api",
    "rerank": "resight.graph.second",
    "train_embedder": "resight.api",
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
