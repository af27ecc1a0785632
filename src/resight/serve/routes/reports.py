"""/v1/reports: the evaluations that exist, and their pages."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from resight.serve.access import Bearer, Searcher, The, need
from resight.serve.answers import ReportAnswer, ReportsAnswer, problems
from resight.serve.catalogue import page
from resight.serve.problems import Problem
from resight.serve.reports import Report
from resight.serve.routes.images import Limit, Offset
from resight.serve.service import Service
from resight.serve.uploads import BIGGEST

router = APIRouter(tags=["reports"])
ReportId = Annotated[str, Path(pattern="^[0-9a-f]{12}$", examples=["0123456789ab"])]
# Whatever a page holds: nothing in it runs, asks for anything, or is of our origin.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox"
    ),
    "X-Frame-Options": "SAMEORIGIN",
    "Cache-Control": "private, no-store",
}


def _json(service: Service, one: Report) -> dict[str, Any]:
    told = {"report": one.id, "kind": one.kind, "title": one.title, "when": one.when}
    at = f"/v1/reports/{one.id}/page"
    link = f"{at}?{service.links.query(at)}" if one.path is not None else None
    return told | {"page": link, "scores": one.scores}


@router.get("/v1/reports", summary="Reports", response_model=ReportsAnswer, responses=problems())
def reports(service: The, caller: Searcher, offset: Offset = 0, limit: Limit = 50) -> JSONResponse:
    """Evaluations and other pages that the service was started with (--reports)."""
    every = list(service.reports.all.values())
    found = [_json(service, one) for one in every[offset : offset + limit]]
    return JSONResponse(page(len(every), offset, limit) | {"reports": found})


@router.get(
    "/v1/reports/{report}",
    summary="A report",
    response_model=ReportAnswer,
    responses=problems(404),
)
def report(service: The, caller: Searcher, report: ReportId) -> JSONResponse:
    """Its figures, and the address of its page, which is good for ten minutes."""
    one = service.reports.all.get(report)
    if one is None:
        raise Problem(404, f"report {report}: there is no such report")
    return JSONResponse(_json(service, one))


@router.get(
    "/v1/reports/{report}/page",
    summary="Its page",
    response_class=Response,
    responses=problems(404) | {200: {"content": {"text/html": {}}}},
)
async def page_(
    request: Request,
    service: The,
    given: Bearer,
    report: ReportId,
    until: Annotated[int, Query(ge=0, le=BIGGEST)] = 0,
    sign: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """HTML, in a sandbox: no script, no request. With a key, or by an address from above."""
    if not service.links.good(f"/v1/reports/{report}/page", until, sign):
        await need("search")(request, given)
    content = service.reports.page(report)
    if content is None:
        raise Problem(404, f"report {report}: there is no such page")
    return Response(content, media_type="text/html; charset=utf-8", headers=HEADERS)
