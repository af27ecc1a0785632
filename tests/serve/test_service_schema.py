"""schemathesis over the OpenAPI: whatever is sent, nothing breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import client_of


def test_no_request_breaks_it(folder: Path) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    with client_of(folder) as client:
        # Its own transport would open the gallery again for each call.
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        ran = 0
        for found in schema.get_all_operations():
            operation = found.ok()

            @given(case=operation.as_strategy())
            @settings(
                max_examples=6,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.explicit, Phase.generate],
            )
            def ask(case: object) -> None:
                nonlocal ran
                told = case.as_transport_kwargs(base_url="http://localhost")  # type: ignore[attr-defined]
                told = {k: v for k, v in told.items() if k not in ("cookies",) and v is not None}
                data = told.pop("data", None)
                if isinstance(data, bytes | str):
                    told["content"] = data
                elif data is not None:
                    told["data"] = data
                try:
                    request = client.build_request(**told)
                except Exception:  # no client can send this
                    return
                got = client.send(request)
                assert got.status_code < 500, (got.request.url, got.text)
                ran += 1

            ask()
        assert ran > 50
