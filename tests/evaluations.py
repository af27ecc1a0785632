"""Evaluation folders as `resight evaluate --out` writes them, from chosen ranks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pictures import save

PROTOCOL = {"name": "market1501", "mode": "query-gallery", "cross_camera": True, "notes": []}
CUTOFFS = (1, 5, 10)


def photos(folder: Path, count: int, objects: int, cameras: int = 3) -> pl.DataFrame:
    """An image set of real files: object i % objects, camera i % cameras."""
    names = [f"photos/{i:04d}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        if not (folder / name).exists():
            save(folder / name, i % objects, (24, 48))
    return pl.DataFrame(
        {
            "path": [str(folder / name) for name in names],
            "object": [f"object {i % objects:02d}" for i in range(count)],
            "camera": [f"c{i % cameras}" for i in range(count)],
            "split": "test",
            "role": None,
            "box": None,
            "category": ["shoe" if i % objects < objects // 2 else "hat" for i in range(count)],
        },
        schema_overrides={"role": pl.String, "box": pl.List(pl.Float64)},
    )


def ranks(seed: int, count: int, shift: float = 0.0) -> np.ndarray:
    """Ranks of first hits, one a query: an object's queries are alike, `shift` makes them worse."""
    own = np.random.default_rng(seed).normal(size=count)
    base = np.random.default_rng(99).normal(0.5, 1.2, 20)[np.arange(count) % 20]
    return np.maximum(1, np.exp(base + 0.5 * own + shift)).astype(np.int64)


def evaluation(
    folder: Path,
    images: pl.DataFrame,
    first: Sequence[int] | np.ndarray,
    *,
    protocol: dict[str, Any] = PROTOCOL,
    rows: Sequence[int] | None = None,
    **changes: Any,
) -> Path:
    """Write (or add a protocol to) an evaluation folder; one positive a query, so AP = 1 / rank."""
    first = np.asarray(first)
    chosen = np.arange(len(first)) if rows is None else np.asarray(rows)
    table = images[chosen].select("path", "object", "camera", "category")
    n = images.height
    table = table.with_columns(
        pl.Series("row", chosen, dtype=pl.Int64),
        pl.lit(0, pl.Int64).alias("repeat"),
        pl.Series("AP", 1 / first),
        pl.Series("INP", 1 / first),
        pl.Series("first_rank", first, dtype=pl.Int64),
        pl.lit(1, pl.Int64).alias("positives"),
        pl.lit(n - 1, pl.Int64).alias("gallery"),
        pl.Series("right", (chosen + 20) % n, dtype=pl.Int64),
        pl.Series("wrong", (chosen + first + 2) % n, dtype=pl.Int64),
        pl.lit(0.5).alias("right_similarity"),
        pl.lit(0.4).alias("wrong_similarity"),
    )
    name = protocol["name"]
    (folder / name).mkdir(parents=True)
    table.write_parquet(folder / name / "per_query.parquet")
    images.write_parquet(folder / "images.parquet")
    summary: dict[str, Any] = {"protocol": name, "title": f"{name} in words", "level": "image"}
    summary["mAP"] = float(np.mean(1 / first))
    summary |= {f"R@{k}": float(np.mean(first <= k)) for k in CUTOFFS}
    summary |= {"mINP": summary["mAP"], "queries": len(first), "gallery": n - 1, "primary": "mAP"}
    metrics = ["mAP", *(f"R@{k}" for k in CUTOFFS), "mINP"]
    summary["intervals"] = {m: [summary[m] - 0.02, summary[m] + 0.02] for m in metrics}
    file = folder / "scores.json"
    record: dict[str, Any] = {
        "command": ["resight", "evaluate", folder.name],
        "when": "2026-01-02T03:04:05+0000",
        "data": {"source": "photos", "fingerprint": "f" * 64, "layout": ""},
        "origin": {},
        "versions": {"python": "3.11", "numpy": "2.0"},
        "git": {"commit": "0123456789abcdef", "changed": False},
        "protocols": [],
        "scores": [],
    }
    if file.exists():
        record = json.loads(file.read_text())
    record["protocols"].append(protocol)
    record["scores"].append(summary)
    record |= changes
    file.write_text(json.dumps(record))
    return folder
