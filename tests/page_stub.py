"""A small service for the page's tests: the contract of docs/serve.md, colours in place of a network.

`python tests/page_stub.py FOLDER PORT` serves the pictures of a folder with a sub-folder an object.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from PIL import Image

PAGE = Path(__file__).parents[1] / "src/resight/serve/page"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def features(picture: Image.Image) -> np.ndarray:
    small = np.asarray(picture.convert("RGB").resize((8, 8)), dtype=np.float32).ravel() - 128
    return small / (np.linalg.norm(small) + 1e-6)


class Store:
    def __init__(self, folder: Path, most: int = 2000):
        self.rows: dict[int, dict[str, Any]] = {}
        self.vectors: dict[int, np.ndarray] = {}
        self.small: dict[int, bytes] = {}
        self.feedback: dict[int, Any] = {}
        self.hashes: dict[str, int] = {}
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".png"))[:most]:
            self.add(path.read_bytes(), path.parent.name, path.name)

    def add(self, content: bytes, label: str | None, name: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        if digest in self.hashes:
            return {**self.image(self.hashes[digest]), "known": True}
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        number = max(self.rows, default=0) + 1
        shop = "shop" if number % 3 == 0 else "store"
        columns = {"place": shop, "shelf": number % 5 + 1}
        self.rows[number] = {"image": number, "object": label, "camera": shop, "split": None,
            "box": None, "columns": columns, "width": picture.width, "height": picture.height,
            "thumbnail": f"/v1/images/{number}/thumbnail", "name": name}
        self.vectors[number] = features(picture)
        picture.thumbnail((160, 160))
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=85)
        self.small[number] = out.getvalue()
        self.hashes[digest] = number
        return self.image(number)

    def image(self, number: int) -> dict[str, Any]:
        return self.rows[number]

    def remove(self, number: int) -> None:
        del self.rows[number], self.vectors[number], self.small[number]
        self.hashes = {d: n for d, n in self.hashes.items() if n != number}

    def objects(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, row in self.rows.items():
            if row["object"]:
                found.setdefault(row["object"], []).append(number)
        return dict(sorted(found.items()))

    def passes(self, row: dict[str, Any], where: str | None) -> bool:
        for part in (where or "").split(" and ") if where else []:
            name, sign, value = re.fullmatch(r"`(\w+)` (in|>=|<=) (.+)", part).groups()  # type: ignore[union-attr]
            has = row["columns"][name]
            if sign == "in" and f"'{has}'" not in value:
                return False
            if sign != "in" and (has < float(value) if sign == ">=" else has > float(value)):
                return False
        return True

    def search(
        self, vector: np.ndarray, k: int, level: str, where: str | None, without: Any = None
    ) -> dict[str, Any]:
        best: dict[Any, tuple[float, int]] = {}
        for number, row in self.rows.items():
            if self.passes(row, where) and (without is None or without not in (number, row["object"])):
                near = float(vector @ self.vectors[number])
                key = row["object"] or -number
                if key not in best or near > best[key][0]:
                    best[key] = (near, number)
        order = sorted(best.items(), key=lambda item: -item[1][0])[:k]
        many = {name: len(images) for name, images in self.objects().items()}
        hits = []
        for rank, (_, (near, number)) in enumerate(order, 1):
            row = self.rows[number]
            p = 1 / (1 + np.exp(-(near - 0.72) * 22)) * 0.995
            hits.append({"rank": rank, "object": row["object"], "similarity": near, "probability": float(p),
                "p_value": 0.01, "image": number, "images": many.get(row["object"], 1), "box": None,
                "camera": row["camera"], "columns": row["columns"], "thumbnail": row["thumbnail"],
                "why": f"{level} vectors, flat"})
        none = not hits or hits[0]["probability"] < 0.35
        return {"request": "stub", "no_match": none, "p_value": 0.01, "alpha": 0.05, "level": level,
            "hits": hits, "milliseconds": {"queue": 0.4, "decode": 6.1, "embed": 31.0, "search": 3.2, "total": 41.0}}


def application(store: Store, role: str = "write") -> Any:
    app = FastAPI()

    @app.middleware("http")
    async def policy(request: Request, go_on: Any) -> Any:
        answer = await go_on(request)
        answer.headers["Content-Security-Policy"] = CSP
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer

    def problem(status: int, detail: str) -> JSONResponse:
        return JSONResponse({"type": "about:blank", "title": "problem", "status": status, "detail": detail},
            status, media_type="application/problem+json")

    def page(rows: list[Any], offset: int, limit: int) -> dict[str, Any]:
        return {"total": len(rows), "next": offset + limit if offset + limit < len(rows) else None}

    @app.get("/")
    def index() -> Any:
        return FileResponse(PAGE / "index.html")

    @app.get("/v1/gallery")
    def gallery() -> Any:
        return {"name": "groceries", "level": "image", "images": len(store.rows), "objects": len(store.objects()),
            "vectors": len(store.rows), "dimensions": 192, "model": {}, "calibrated": {"image": {"alpha": 0.05}},
            "columns": [{"name": "place", "kind": "text", "values": ["store", "shop"]},
                {"name": "shelf", "kind": "number", "values": [1, 2, 3, 4, 5]}],
            "role": role, "offers": ["map", "doubtful"], "limits": {"bytes": 20_000_000, "pixels": 50_000_000, "photos": 8, "k": 100}}

    @app.post("/v1/search")
    async def search(request: Request) -> Any:
        without: Any = None
        if request.headers["content-type"].startswith("application/json"):
            asked = await request.json()
            if "object" in asked:
                own = store.objects().get(asked["object"])
                if not own:
                    return problem(422, f"no object {asked['object']}")
                vector = np.mean([store.vectors[n] for n in own], axis=0)
                without = asked["object"]
            elif asked["image"] in store.rows:
                vector = store.vectors[asked["image"]]
                without = asked["image"]
            else:
                return problem(404, f"no image {asked['image']}")
        else:
            form = await request.form()
            asked = dict(form)
            vectors = []
            for upload in form.getlist("photo"):
                try:
                    picture = Image.open(io.BytesIO(await upload.read())).convert("RGB")  # type: ignore[union-attr]
                except OSError:
                    return problem(415, "the photo is not an image that can be read")
                if "region" in asked:
                    picture = picture.crop(tuple(int(v) for v in str(asked["region"]).split(",")))  # type: ignore[arg-type]
                vectors.append(features(picture))
            vector = np.mean(vectors, axis=0)
        vector = vector / np.linalg.norm(vector)
        return store.search(vector, int(asked.get("k", 10)), asked.get("level", "image"), asked.get("where"), without)

    @app.get("/v1/objects")
    def objects(like: str = "", offset: int = 0, limit: int = 50) -> Any:
        rows = [(o, n) for o, n in store.objects().items() if like.lower() in o.lower()]
        return {**page(rows, offset, limit), "objects": [{"object": o, "images": len(n),
            "thumbnail": f"/v1/images/{n[0]}/thumbnail"} for o, n in rows[offset : offset + limit]]}

    @app.get("/v1/objects/{name:path}")
    def one(name: str, offset: int = 0, limit: int = 100) -> Any:
        rows = store.objects().get(name)
        if rows is None:
            return problem(404, f"no object {name}")
        return {**page(rows, offset, limit), "object": name, "images": [store.image(n) for n in rows[offset : offset + limit]]}

    @app.get("/v1/images/{number}")
    def image(number: int) -> Any:
        return store.image(number) if number in store.rows else problem(404, f"no image {number}")

    @app.get("/v1/images/{number}/thumbnail")
    def thumbnail(number: int) -> Any:
        return Response(store.small[number], media_type="image/jpeg", headers={"Cache-Control": "max-age=600"})

    @app.post("/v1/images", status_code=201)
    async def add(request: Request) -> Any:
        form = await request.form()
        return store.add(await form["photo"].read(), form.get("object"), form["photo"].filename)  # type: ignore

    @app.patch("/v1/images/{number}")
    async def move(number: int, request: Request) -> Any:
        store.rows[number]["object"] = (await request.json())["object"]
        return store.image(number)

    @app.delete("/v1/images/{number}", status_code=204)
    def remove(number: int) -> None:
        store.remove(number)

    @app.post("/v1/feedback", status_code=201)
    async def feedback(request: Request) -> Any:
        form = await request.form()
        number = len(store.feedback) + 1
        store.feedback[number] = json.loads(str(form["answer"]))
        return {"feedback": number}

    @app.delete("/v1/feedback/{number}", status_code=204)
    def undo(number: int) -> None:
        store.feedback.pop(number, None)

    @app.get("/v1/map")
    def plane() -> Any:
        names = list(store.objects())
        at = {name: i for i, name in enumerate(names)}
        numbers = [n for n, row in store.rows.items() if row["object"]]
        x = np.array([store.vectors[n] for n in numbers])
        u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
        xy = np.round(u[:, :2] * s[:2], 4).tolist()
        return {"points": [[*p, n, at[store.rows[n]["object"]]] for p, n in zip(xy, numbers, strict=True)], "objects": names}

    @app.get("/v1/doubtful")
    def doubtful(offset: int = 0, limit: int = 50) -> Any:
        numbers = list(store.rows)[:6]
        return {"near_duplicates": [[store.image(numbers[0]), store.image(numbers[1]), 0.991]],
            "outliers": [{**store.image(n), "similarity": 0.31} for n in numbers[2:]]}

    app.mount("/static", StaticFiles(directory=PAGE))
    return app


if __name__ == "__main__":
    import uvicorn

    kept = Store(Path(sys.argv[1]))
    uvicorn.run(application(kept), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
