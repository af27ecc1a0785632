"""Evaluations with a second look: the ranks are those of the scores, junk leaves afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.oracles import retrieval
from typer.testing import CliRunner

import resight
from resight.cli.main import app
from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.evaluate.protocols import Protocol
from resight.evaluate.report.hits import first_hits
from resight.evaluate.scores import evaluate
from resight.graph.second import Rescored, prepare


def images(seed: int, roles: bool, n: int = 60) -> tuple[ImageSet, np.ndarray]:
    random = np.random.default_rng(seed)
    object_ = random.integers(0, 12, n)
    table = pl.DataFrame(
        {
            "path": [f"{i}.jpg" for i in range(n)],
            "object": [f"o{o}" if o else None for o in object_],
            "camera": [str(c) for c in random.integers(0, 3, n)],
            "role": random.choice(["query", "gallery"], n).tolist() if roles else [None] * n,
        },
        strict=False,
    )
    centres = random.normal(size=(12, 8))
    features = (centres[object_] + 0.8 * random.normal(size=(n, 8))).astype(np.float32)
    return ImageSet(normalise(table), Path(".")), features


@pytest.mark.parametrize("how", ["aqe:n=3", "dba:n=3", "kreciprocal:k1=6,k2=3", "diffusion:k=5"])
@pytest.mark.parametrize("roles", [False, True])
@pytest.mark.parametrize("cross_camera", [False, True])
def test_against_loops(how, roles, cross_camera):
    for seed in range(3):
        found, features = images(seed, roles)
        rows = found.table.to_dicts()
        asked = [one for one in retrieval.lists(rows, cross_camera, roles) if one["positives"]]
        mode = "query-gallery" if roles else "leave-one-out"
        protocol = Protocol(mode, cross_camera=cross_camera, rerank=how)
        scores = evaluate(features, found, protocol=protocol, block_bytes=4000)
        gallery = asked[0]["gallery"]
        prepared = prepare(features[gallery], how)
        expected = []
        for one in asked:
            query = one["query"]
            own = np.array([gallery.index(query) if query in gallery else -1])
            (line,) = Rescored(prepared, features[query : query + 1], own)[0:1]
            order = sorted(range(len(gallery)), key=lambda j, line=line: (-line[j], j))
            searched = [gallery[j] for j in order if gallery[j] not in one["junk"]]
            expected.append(retrieval.average_precision([g in one["positives"] for g in searched]))
        np.testing.assert_allclose(scores.per_query["AP"], expected, atol=1e-12)
        whole = evaluate(features, found, protocol=protocol)
        assert whole.per_query.equals(scores.per_query)
        # The page's hits are those of the second look, too.
        hits = first_hits(scores, [0], 5)[0]
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
        rank = scores.per_query["first_rank"][0]
        assert [hit.right for hit in hits].index(True) + 1 == rank if rank <= 5 else True


def test_at_object_level_centroids_are_the_rows():
    found, features = images(3, True)
    protocol = Protocol("query-gallery", level="object", rerank="kreciprocal:k1=4,k2=2")
    scores = evaluate(features, found, protocol=protocol)
    table = found.table.with_row_index()
    gallery = table.filter(role="gallery")
    names, rows = [], []
    for object_, part in gallery.with_columns(
        pl.coalesce("object", pl.col("index").cast(pl.String)).alias("key")
    ).group_by("key", maintain_order=True):
        names.append(object_[0])
        rows.append(features[part["index"].to_list()].astype(float).mean(axis=0))
    queries = table.filter((pl.col("role") == "query") & pl.col("object").is_in(names))
    ids, _ = resight.rerank(
        features[queries["index"].to_list()], np.array(rows), "kreciprocal:k1=4,k2=2", len(names)
    )
    ranks = [
        line.tolist().index(names.index(name)) + 1
        for line, name in zip(ids, queries["object"], strict=True)
    ]
    assert scores.per_query["first_rank"].to_list() == ranks
    with pytest.raises(UserError, match="leaves images out"):
        evaluate(features, images(3, False)[0], protocol=Protocol(
            "leave-one-out", level="object", rerank="diffusion"))  # fmt: skip


def test_transductive_and_its_title():
    found, features = images(4, True)
    alone = resight.measure(features, found, rerank="kreciprocal:k1=6")
    jointly = resight.measure(features, found, rerank="kreciprocal:k1=6", transductive=True)
    assert "re-ranked by kreciprocal:k1=6" in alone.summary()["title"]
    assert "TRANSDUCTIVE" in jointly.summary()["title"] and jointly.protocol.transductive
    assert not alone.per_query["AP"].equals(jointly.per_query["AP"])
    assert Protocol.from_dict(jointly.protocol.to_dict()) == jointly.protocol
    plain = resight.measure(features, found, rerank="none")
    assert plain.protocol == resight.measure(features, found).protocol


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rerank": "magic"}, "no step here"),
        ({"transductive": True}, "goes with rerank"),
        ({"rerank": "aqe", "transductive": True}, "can't be transductive"),
        ({"rerank": "aqe", "pairs": True}, "without legacy and pairs"),
    ],
)
def test_what_a_protocol_can_not_be(values, said):
    with pytest.raises(UserError, match=said):
        Protocol("leave-one-out", **values)


def test_spatial_needs_pictures():
    found, features = images(5, True)
    averaged = Protocol("query-gallery", templates="camera", rerank="spatial")
    with pytest.raises(UserError, match="no picture"):
        evaluate(features, found, protocol=averaged)
    with pytest.raises(UserError, match="take --level image"):
        evaluate(features, found, protocol=Protocol(
            "query-gallery", level="object", rerank="spatial"))  # fmt: skip


def test_a_run_with_and_one_without_are_compared(tmp_path):
    found, features = images(6, False, 120)
    table = found.table.with_columns(camera=pl.lit(None, pl.String))
    table.write_parquet(tmp_path / "set.parquet")
    for path in table["path"]:
        (tmp_path / path).touch()
    np.save(tmp_path / "f.npy", features)
    run = CliRunner()
    base = ["evaluate", str(tmp_path / "f.npy"), str(tmp_path / "set.parquet")]
    for name, more in (("plain", []), ("again", ["--rerank", "kreciprocal:k1=8"])):
        done = run.invoke(app, [*base, *more, "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    assert "left out" in done.output  # the object level, of leave one out
    stored = json.loads((tmp_path / "again" / "scores.json").read_text())
    assert [one["rerank"] for one in stored["protocols"]] == ["kreciprocal:k1=8"]
    (compared,) = resight.compare_evaluations(tmp_path / "plain", tmp_path / "again")
    assert "re-ranking differs: plain none, again by kreciprocal:k1=8" in compared.notes
    assert not np.isnan(compared.differences[0].mean).any()
    repeated = run.invoke(app, ["evaluate", "--from", str(tmp_path / "again")])
    assert repeated.exit_code == 0 and "to the last digit" in repeated.output
    for wrong, said in (
        (["--rerank", "magic"], "no step here"),
        (["--transductive"], "goes with --rerank"),
        (["--rerank", "aqe", "--transductive"], "can't be transductive"),
    ):
        done = run.invoke(app, [*base, *wrong])
        assert done.exit_code != 0
        assert said in done.output + str(done.exception)
