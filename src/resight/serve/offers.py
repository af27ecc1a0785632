"""What a service can do beyond searching, so that the page shows no more than that."""

from __future__ import annotations

from resight.serve.service import Service

# Ways of re-ranking that a search takes in "rerank"; each is offered as "rerank:NAME".
RERANKS: tuple[str, ...] = ()


def offers(service: Service) -> list[str]:
    """doubtful and map (see routes.overview), reports where there are some, rerank:NAME."""
    found = ["doubtful", "map"]
    if service.reports.all:
        found.append("reports")
    return found + [f"rerank:{name}" for name in RERANKS]
