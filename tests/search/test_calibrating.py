"""A gallery that says what is not in it: the promise on objects that it has not seen."""

from __future__ import annotations

import numpy as np
import pytest
from tests.search.test_searching import features

from resight.errors import UserError
from resight.search.calibrating import kept
from resight.search.calibration import calibrate
from resight.search.gallery import Gallery
from resight.search.left_out import best_other


def world(seed: int, objects: int, images: int = 3, dim: int = 12) -> tuple[np.ndarray, list[str]]:
    """Objects around centres, some of which are near each other."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(8, dim))
    centres = kinds[rng.integers(0, 8, objects)] + rng.normal(size=(objects, dim))
    vectors = np.repeat(centres, images, 0) + 0.4 * rng.normal(size=(objects * images, dim))
    return vectors.astype(np.float32), [f"o{k // images}" for k in range(objects * images)]


@pytest.mark.parametrize("level", ["image", "object"])
def test_things_that_are_not_there_are_matched_no_more_often_than_promised(level):
    alpha, wrong, asked, found = 0.1, 0, 0, 0
    for seed in range(25):
        vectors, objects = world(seed, 60)
        known = np.array([int(name[1:]) < 40 for name in objects])
        names = [name for name, keep in zip(objects, known, strict=True) if keep]
        gallery = Gallery(level=level).add(features(vectors[known], object=names))
        gallery.calibrate(alpha=alpha, seed=seed)
        strangers = gallery.search_vectors(vectors[~known][::3])
        wrong += sum(not hits.no_match for hits in strangers)
        asked += len(strangers)
        found += sum(not hits.no_match for hits in gallery.search_vectors(vectors[known]))
    # 500 strangers; those of one gallery are not independent, so three times the binomial's.
    assert wrong / asked <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / asked), wrong / asked
    assert wrong / asked > 0.02  # nor by never answering
    assert found > 1500  # of 3,000 that are there


def test_what_a_search_says_is_what_the_arrays_say():
    vectors, objects = world(3, 30)
    gallery = Gallery().add(features(vectors, object=objects))
    assert gallery.search_vectors(vectors[:1])[0].no_match is None
    known = gallery.calibrate(alpha=0.2)
    codes = np.repeat(np.arange(30), 3)
    other = best_other(vectors, codes, "image").other
    ids = np.array([gallery.engine.rows([row + 1])[0].object_id for row in range(90)])
    plain = calibrate(other, ids, "drawn", 0)
    queries = np.random.default_rng(9).normal(size=(20, 12)).astype(np.float32)
    for hits in gallery.search_vectors(queries, 3):
        codes_ = [gallery.engine.rows([hit.image])[0].object_id for hit in hits]
        expected = plain.p_values(np.array([hit.similarity for hit in hits]), np.array(codes_))
        assert [hit.p_value for hit in hits] == pytest.approx(expected.tolist())
        assert hits.p_value == hits[0].p_value and hits.no_match == (hits.p_value > 0.2)
        likely = [hit.probability for hit in hits]
        assert likely == sorted(likely, reverse=True) and all(0 <= p <= 1 for p in likely)
    assert known.record["objects"] == 30 and known.record["queries"] == 90
    one, three = gallery.search_vectors(queries, 1), gallery.search_vectors(queries, 3)
    assert [hits[0] for hits in one] == [hits[0] for hits in three]  # a gap needs two


def test_it_is_kept_and_grows_stale(tmp_path):
    vectors, objects = world(1, 30)
    gallery = Gallery.create(tmp_path / "g", level="object")
    gallery.add(features(vectors, object=objects)).calibrate(alpha=0.1)
    before = gallery.search_vectors(vectors[:5])
    gallery.close()
    again = Gallery.open(tmp_path / "g")
    assert again.search_vectors(vectors[:5]) == before and before[0].no_match is not None
    assert again.info()["calibrated"]["object"]["stale"] is False
    assert kept(again.engine, "image") is None
    assert again.search_vectors(vectors[:1], level="image")[0].no_match is None
    assert again.search_vectors(vectors[:1], level="both")[0].no_match is not None
    again.remove(list(range(1, 20)))
    assert again.info()["calibrated"]["object"]["stale"] is True


def test_few_objects_promise_little():
    vectors, objects = world(1, 10)
    told: list[str] = []
    gallery = Gallery().add(features(vectors, object=objects))
    known = gallery.calibrate(alpha=0.05, tell=told.append)
    assert known.record["alpha"] == pytest.approx(2 / 11)
    assert told == ["alpha 0.05 takes 39 objects, there are 10: 0.182 is promised instead"]
    with pytest.raises(UserError, match=r"0\.1818 is the smallest that can be promised"):
        gallery.search_vectors(vectors[:1], alpha=0.05)
    assert gallery.search_vectors(vectors[:1], alpha=0.5)[0].alpha == 0.5
    for vectors_, names in ((vectors[:3], ["a"] * 3), (vectors[:3], [None] * 3)):
        with pytest.raises(UserError, match="at least 2 known objects"):
            Gallery().add(features(vectors_, object=names)).calibrate()


def test_objects_of_one_image_have_p_values_but_no_probability():
    vectors, objects = world(2, 40, images=1)
    gallery = Gallery().add(features(vectors, object=objects))
    known = gallery.calibrate(alpha=0.1)
    assert known.probability is None
    hits = gallery.search_vectors(vectors[:1])[0]
    assert hits[0].probability is None and hits.p_value is not None


def test_labelled_queries_of_another_kind():
    vectors, objects = world(4, 40)
    gallery = Gallery(level="object").add(features(vectors, object=objects))
    rng = np.random.default_rng(0)
    shifted = (vectors + 2.0 + 0.5 * rng.normal(size=vectors.shape)).astype(np.float32)
    known = gallery.calibrate(queries=(shifted, [*objects[:-1], "stranger"]), alpha=0.1)
    assert known.record["from"] == "query photos" and known.record["queries"] == 119
    compared = known.record["compared"]
    assert compared["queries_median"] != pytest.approx(compared["gallery_median"], abs=0.01)
    assert set(compared["without_queries"]) >= {"rate", "kept", "alpha"}
    with pytest.raises(UserError, match="none of the labelled queries"):
        gallery.calibrate(queries=(shifted[:3], ["x", "y", None]))
