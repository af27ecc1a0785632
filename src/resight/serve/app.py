"""The application: routes, page, and what lives as long as it does."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from resight import __version__
from resight.serve import logs
from resight.serve.answers import ProblemAnswer
from resight.serve.keys import Keys
from resight.serve.middleware import Around
from resight.serve.problems import add_handlers
from resight.serve.routes import (
    feedback,
    gallery,
    health,
    images,
    objects,
    overview,
    reports,
    search,
)
from resight.serve.service import Service
from resight.serve.settings import Settings

PAGE = Path(__file__).parent / "page"
FOLDER, TOLD = "RESIGHT_SERVE_GALLERY", "RESIGHT_SERVE_SETTINGS"


def create_app(gallery_folder: str | Path, settings: Settings | None = None) -> FastAPI:
    """A gallery as an ASGI application; gallery and embedder are opened when it starts.

    Raises UserError for keys or reports that can't be read.
    """
    settings = settings or Settings()
    service = Service(Path(gallery_folder), settings, Keys.read(settings.keys))

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await service.open()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="resight",
        version=__version__,
        summary="Find the same thing again: search a gallery by photo.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    add_handlers(app)
    for part in (search, images, objects, gallery, overview, reports, feedback, health):
        app.include_router(part.router)

    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", StaticFiles(directory=PAGE), name="static")
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["X-Request-Id"],
        )
    app.add_middleware(
        Around, settings=settings, metrics=service.metrics, local=lambda: not service.keys
    )
    _complete(app)
    return app


def _complete(app: FastAPI) -> None:
    """The shape of problems, which no route returns by name, is in the OpenAPI."""
    made = app.openapi

    def openapi() -> dict[str, object]:
        schema = made()
        parts = schema.setdefault("components", {}).setdefault("schemas", {})
        parts["ProblemAnswer"] = ProblemAnswer.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            parts.pop(unused, None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def from_environment() -> FastAPI:
    """The application that `resight serve` has told its processes to make."""
    logs.set_up()
    return create_app(os.environ[FOLDER], Settings.model_validate_json(os.environ[TOLD]))
