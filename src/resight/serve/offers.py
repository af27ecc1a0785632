"""What a service can do beyond searching, so that the page shows no more than that."""

from __future__ import annotations

from resight.serve import looks
from resight.serve.service import Service


def offers(service: Service) -> list[str]:
    """doubtful and map (see routes.overview), reports where there are some, rerank:NAME.

    What looks at neighbourhoods is made of the whole gallery first: for small ones only.
    """
    found = ["doubtful", "map"]
    if service.reports.all:
        found.append("reports")
    names = ["aqe"]
    if len(service.gallery) <= looks.RERANKED:
        names += looks.NAMES
        service.looks.begin()  # whoever asks what there is may soon ask for it
    names.append("spatial")
    return found + [f"rerank:{name}" for name in names]
