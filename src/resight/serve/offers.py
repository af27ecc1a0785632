"""What a service can do beyond searching, so that the page shows no more than that."""

from __future__ import annotations

from resight.serve.service import Service


def offers(service: Service) -> list[str]:
    """doubtful and map (see routes.overview), reports where there are some, rerank:NAME."""
    found = ["doubtful", "map"]
    if service.reports.all:
        found.append("reports")
    looks = service.looks.offered(len(service.gallery))
    if looks:
        service.looks.begin()  # whoever asks what there is may soon ask for it
    return found + [f"rerank:{name}" for name in ("aqe", *looks, "spatial")]
