"""A gallery whose folder holds the embedder, and a server everything else."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest
from tests.search.test_searching import features
from tests.storages import address

from resight.data.sources import load_images
from resight.errors import UserError
from resight.search.gallery import Gallery


def names(kind: str, tmp_path: Path) -> str:
    if kind == "postgresql":
        return address(f"g{uuid.uuid4().hex[:12]}")
    pytest.importorskip("qdrant_client", exc_type=ImportError)
    return f"qdrant:{tmp_path / 'points'}"


@pytest.mark.parametrize("kind", ["postgresql", "qdrant"])
def test_from_photos_to_a_search(kind, embedder, shapes, tmp_path):
    engine = names(kind, tmp_path)
    plain = Gallery(embedder, "object").add(load_images(shapes))
    with Gallery.create(tmp_path / "g", embedder, "object", engine=engine) as made:
        made.add(load_images(shapes))
        assert made.engine.counts() == (60, 12) and len(made) == 12
    photo = shapes / "object 03" / "foto_ä1.png"
    with Gallery.open(tmp_path / "g") as opened:
        for level in ("image", "object", "both"):
            for how in ({}, {"where": "object like 'object 0%'"}, {"exclude_cameras": ["c"]}):
                (hits,) = opened.search(photo, 5, level=level, **how)
                (same,) = plain.search(photo, 5, level=level, **how)
                assert [hit.object for hit in hits] == [hit.object for hit in same]
                expected = [hit.similarity for hit in same]
                assert [hit.similarity for hit in hits] == pytest.approx(expected, abs=1e-6)
        with pytest.raises(UserError, match="no column 'prize'"):
            opened.search(photo, where="prize < 3")
        opened.calibrate(alpha=0.2)
        assert opened.search(photo)[0].no_match is not None
        assert opened.info()["index"]["kind"] == "the engine's own"
    if kind == "postgresql":
        other = type(embedder)(embedder.config)
        with pytest.raises(UserError, match="of another embedder"):
            Gallery.create(tmp_path / "h", other, engine=engine)
        with Gallery.create(tmp_path / "i", embedder, "object", engine=engine) as second:
            assert second.engine.counts() == (60, 12)  # two machines, one gallery


def test_more_is_asked_for_until_there_are_enough_objects(tmp_path):
    rng = np.random.default_rng(0)
    crowd = np.ones((150, 8)) + 0.01 * rng.normal(size=(150, 8))
    vectors = np.concatenate([crowd, rng.normal(size=(30, 8))])
    objects = ["crowd"] * 150 + [f"o{k // 2}" for k in range(30)]
    plain = Gallery().add(features(vectors, object=objects))
    with Gallery.create(tmp_path / "g", engine=names("postgresql", tmp_path)) as made:
        made.add(features(vectors, object=objects))
        query = np.ones((1, 8), np.float32)
        found, same = made.search_vectors(query, 10)[0], plain.search_vectors(query, 10)[0]
        assert [hit.object for hit in found] == [hit.object for hit in same]
        assert len({hit.object for hit in found}) == 10
