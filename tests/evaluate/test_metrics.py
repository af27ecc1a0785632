"""Metrics on a list worked by hand, on the edges, and against loops along the whole path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import metrics as slow
from tests.oracles import ranking

from resight.data.imageset import ImageSet, normalise
from resight.evaluate import metrics
from resight.evaluate.catalogue import protocol as named
from resight.evaluate.protocols import Protocol
from resight.evaluate.ranking.csr import Csr, offsets
from resight.evaluate.ranking.result import Ranks
from resight.evaluate.ranks import positive_ranks
from resight.evaluate.records.record import by_query
from resight.evaluate.scores import evaluate
from vectors import angles

WORKED = [2, 3, 7, 11, 12]  # papers.md, table D
KINDS = ("rectangular", "trapezoidal")
DIVISORS = ("relevant", "found", "min")
TIES = ("by-id", "optimistic", "pessimistic")


def ranks_of(*lists: Sequence[int]) -> Ranks:
    counts = np.array([len(row) for row in lists])
    rank = np.array([r for row in lists for r in row], dtype=np.int64)
    n = len(lists)
    return Ranks(
        offsets(counts), rank, np.zeros_like(rank), np.zeros(len(rank)), np.full(n, 20),
        np.full(n, -1), np.full(n, np.nan),
    )  # fmt: skip


def hits_of(ranks: Sequence[int], length: int) -> list[bool]:
    """The list of that length with positives at these ranks."""
    return [place in ranks for place in range(1, length + 1)]


def test_the_list_worked_by_hand():
    """Positives at ranks 2, 3, 7, 11, 12 (papers.md, table D).

    rectangular: (1/2 + 2/3 + 3/7 + 4/11 + 5/12) / 5 = .4752
    trapezoidal: each precision is averaged with the one just before, 0/1, 1/2, 2/6, 3/10, 4/11
    """
    ranks = ranks_of(WORKED)
    rectangular = (1 / 2 + 2 / 3 + 3 / 7 + 4 / 11 + 5 / 12) / 5
    before = (0 / 1 + 1 / 2 + 2 / 6 + 3 / 10 + 4 / 11) / 5
    np.testing.assert_allclose(metrics.average_precision(ranks), [rectangular], rtol=1e-15)
    trapezoidal = metrics.average_precision(ranks, "trapezoidal")
    np.testing.assert_allclose(trapezoidal, [(rectangular + before) / 2], rtol=1e-15)
    assert round(rectangular, 3) == 0.475 and trapezoidal.round(3) == 0.387
    assert metrics.hit_at(ranks, 1) == 0 and metrics.hit_at(ranks, 2) == 1
    np.testing.assert_allclose(metrics.inverse_negative_penalty(ranks), 5 / 12)
    assert metrics.first_ranks(ranks) == 2


# Every value of table D, to its three digits: kind, at, divisor, value.
TABLE = [
    ("rectangular", None, "relevant", 0.475),
    ("trapezoidal", None, "relevant", 0.387),
    ("rectangular", 5, "found", 0.583),
    ("rectangular", 10, "found", 0.532),
    ("rectangular", 5, "relevant", 0.233),
    ("rectangular", 10, "relevant", 0.319),
    ("rectangular", 10, "min", 0.319),
]


@pytest.mark.parametrize(("kind", "at", "divisor", "value"), TABLE)
def test_every_value_of_the_table(kind, at, divisor, value):
    hits = hits_of(WORKED, 15)
    found = metrics.average_precision(ranks_of(WORKED), kind, at, divisor)
    assert found.round(3) == value
    if at is not None:
        twin = slow.average_precision_at(hits, at, divisor, kind)
    else:
        twin = slow.rectangular(hits) if kind == "rectangular" else slow.trapezoidal(hits)
    assert round(twin, 3) == value


def test_the_other_values_that_the_docstrings_give():
    ranks, hits = ranks_of(WORKED), hits_of(WORKED, 15)
    assert metrics.map_at_r(ranks).round(3) == round(slow.map_at_r(hits), 3) == 0.233
    assert metrics.r_precision(ranks) == slow.r_precision(hits) == 0.4
    assert metrics.recall_at(ranks, 10) == slow.recall(hits, 10) == 0.6
    assert metrics.hit_at(ranks, 10) == slow.hit_at(hits, 10) == 1
    assert metrics.inverse_negative_penalty(ranks).round(3) == 0.417


@pytest.mark.parametrize(("kind", "at", "divisor", "value"), TABLE)
def test_the_table_from_features_and_a_protocol(kind, at, divisor, value):
    """15 gallery images by rising angle; two of the query's camera stand between as junk."""
    order = [place in WORKED for place in range(1, 16)]
    order = [*order[:1], None, *order[1:6], None, *order[6:]]  # None: junk
    features = angles(0, *range(1, len(order) + 1))
    frame = pl.DataFrame(
        {
            "path": [f"{i}.jpg" for i in range(len(features))],
            "object": ["a", *("b" if hit is False else "a" for hit in order)],
            "camera": ["1", *("1" if hit is None else "2" for hit in order)],
            "role": ["query"] + ["gallery"] * len(order),
        }
    )
    protocol = Protocol(
        "query-gallery", cross_camera=True, ap=kind, ap_at=at, ap_divisor=divisor, pairs=True
    )
    scores = evaluate(features, ImageSet(normalise(frame), Path(".")), protocol=protocol)
    summary = scores.summary()
    assert round(scores.mAP, 3) == round(summary[protocol.metric], 3) == value
    assert round(summary["MAP@R"], 3) == 0.233 and summary["R-precision"] == 0.4
    assert summary["R@1"] == 0 and summary["R@5"] == 1 and round(summary["mINP"], 3) == 0.417
    assert scores.cmc(3).tolist() == [0, 1, 1]
    assert round(summary["µAP"], 3) == 0.475  # of a single query it is the rectangular AP
    assert scores.per_query["first_rank"].item() == 2 and scores.per_query["gallery"].item() == 15


def test_precisions_of_revisitop_by_hand():
    ranks = ranks_of(WORKED, [1, 2], [], [3], [20])
    for k, expected in {
        1: [0, 1, np.nan, 0, 0],
        5: [2 / 5, 1, np.nan, 1 / 3, 0],
        10: [3 / 10, 1, np.nan, 1 / 3, 0],
        20: [5 / 12, 1, np.nan, 1 / 3, 1 / 20],
    }.items():
        np.testing.assert_allclose(metrics.precision_at(ranks, k), expected, rtol=1e-15)


def test_precisions_beside_the_map_of_revisitop():
    """Nearest first: easy, wrong, junk, hard, easy; junk and what is not asked for are removed."""
    names = ["e1", "w", "j", "h", "e2"]
    lists = {"easy": ["e1", "e2"], "hard": ["h"], "junk": ["j"]}
    table = pl.DataFrame(
        {
            "path": [f"{i}.jpg" for i in range(6)],
            "name": ["q", *names],
            "role": ["query"] + ["gallery"] * 5,
            "split": "test",
            **{key: [value] + [None] * 5 for key, value in lists.items()},
        }
    )
    images = ImageSet(normalise(table), Path("."))
    expected = {
        "easy": (1, 2 / 3, 2 / 3),  # e1 w e2
        "medium": (1, 3 / 4, 3 / 4),  # e1 w h e2
        "hard": (0, 1 / 2, 1 / 2),  # w h
    }
    for setting, values in expected.items():
        protocol = named(f"roxford5k-{setting}")
        scores = evaluate(angles(0, 1, 2, 3, 4, 5), images, protocol=protocol)
        summary = scores.summary()
        for k, value in zip((1, 5, 10), values, strict=True):
            assert summary[f"mP@{k}"] == pytest.approx(value, abs=1e-15)
            assert scores.per_query[f"P@{k}"].item() == pytest.approx(value, abs=1e-15)
        assert scores.names().index("mP@1") > 0 and "mP@10" in summary["intervals"]
        by_itself = by_query(scores.per_query, "mP@5")
        assert by_itself is not None and by_itself[0] == pytest.approx(values[1])
    plain = replace(named("roxford5k-easy"), precisions=())
    assert "mP@1" not in evaluate(angles(0, 1, 2, 3, 4, 5), images, protocol=plain).names()


def values_of(ranks: Ranks, k: int, gains: np.ndarray) -> dict[str, np.ndarray]:
    """All per-query metrics; gains: of each gallery row."""
    own = gains[ranks.index]
    found = {
        "map_at_r": metrics.map_at_r(ranks),
        "r_precision": metrics.r_precision(ranks),
        "first_rank": metrics.first_ranks(ranks),
        "hit_at": metrics.hit_at(ranks, k),
        "recall_at": metrics.recall_at(ranks, k),
        "inp": metrics.inverse_negative_penalty(ranks),
        "precision_at": metrics.precision_at(ranks, k),
        "ndcg": metrics.ndcg(ranks),
        "ndcg_at": metrics.ndcg(ranks, at=k),
        "ndcg_graded": metrics.ndcg(ranks, own),
        "ndcg_graded_at": metrics.ndcg(ranks, own, at=k),
    }
    for kind in KINDS:
        found[kind] = metrics.average_precision(ranks, kind)
        for divisor in DIVISORS:
            found[f"{kind} at, {divisor}"] = metrics.average_precision(ranks, kind, k, divisor)
            whole = metrics.average_precision(ranks, kind, None, divisor)
            np.testing.assert_array_equal(whole, found[kind])
    return found


def slow_values(hits: list[bool], k: int, graded: list[float]) -> dict[str, float]:
    """The same of one list; graded: the gain of each place."""
    plain = [float(hit) for hit in hits]
    found = {
        "map_at_r": slow.map_at_r(hits),
        "r_precision": slow.r_precision(hits),
        "first_rank": slow.first_rank(hits),
        "hit_at": slow.hit_at(hits, k),
        "recall_at": slow.recall(hits, k),
        "inp": slow.inverse_negative_penalty(hits),
        "precision_at": slow.precision_of_revisitop(hits, k),
        "ndcg": slow.ndcg(hits, plain),
        "ndcg_at": slow.ndcg(hits, plain, k),
        "ndcg_graded": slow.ndcg(hits, graded),
        "ndcg_graded_at": slow.ndcg(hits, graded, k),
        "rectangular": slow.rectangular(hits),
        "trapezoidal": slow.trapezoidal(hits),
    }
    for kind in KINDS:
        for divisor in DIVISORS:
            found[f"{kind} at, {divisor}"] = slow.average_precision_at(hits, k, divisor, kind)
    return found


def some_lists(rng: np.random.Generator, queries: int, gallery: int) -> tuple[list, list]:
    """Positives and junk of each query: anything, none, all positives, all junk."""
    positives, junk = [], []
    for _ in range(queries):
        share = [rng.dirichlet([1, 1, 1]), [1, 0, 0], [0, 1, 0], [0, 0, 1]][
            rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])
        ]
        kind = rng.choice(3, gallery, p=share)
        positives.append(rng.permutation(np.flatnonzero(kind == 1)).tolist())
        junk.append(np.flatnonzero(kind == 2).tolist())
    return positives, junk


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 5),
    gallery=st.integers(1, 25),
    dimensions=st.integers(1, 3),
    block_bytes=st.sampled_from([1, 7, 64, 300, 2000, 2**29]),
    ties=st.sampled_from(TIES),
    k=st.integers(1, 30),
    grades=st.integers(1, 3),
)
def test_every_metric_equals_a_loop_down_the_list(
    seed, queries, gallery, dimensions, block_bytes, ties, k, grades
):
    """Entries of -1, 0 and 1: most similarities are tied, rows are zero and occur twice."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (queries + gallery, dimensions)).astype(np.float32)
    positives, junk = some_lists(rng, queries, gallery)
    gains = rng.integers(0, grades + 1, gallery).astype(float)
    ranks = positive_ranks(
        rows[:queries], rows[queries:], Csr.from_lists(positives), Csr.from_lists(junk),
        ties=ties, block_bytes=block_bytes,
    )  # fmt: skip
    matrix = ranking.similarities(rows[:queries], rows[queries:])
    sorted_lists = ranking.ranks(matrix, positives, junk, ties)
    lists = [
        hits_of([rank for rank, _, _ in found], gallery - len(hidden))
        for found, hidden in zip(sorted_lists, junk, strict=True)
    ]
    expected = []
    for hits, found in zip(lists, sorted_lists, strict=True):
        graded = [0.0] * len(hits)
        for rank, g, _ in found:
            graded[rank - 1] = float(gains[g])
        expected.append(slow_values(hits, k, graded))
    for name, values in values_of(ranks, k, gains).items():
        wanted = [of_query[name] for of_query in expected]
        np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-12, err_msg=name)
        assert metrics.mean(values) == pytest.approx(slow.mean(wanted), abs=1e-12, nan_ok=True)
    length = gallery + 3
    np.testing.assert_allclose(
        metrics.cmc(ranks, length), slow.cmc(lists, length), rtol=0, atol=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(
    places=st.lists(st.sets(st.integers(1, 300), max_size=60), min_size=1, max_size=3),
    k=st.integers(1, 320),
)
def test_long_lists_agree_to_1e_12(places, k):
    lists = [hits_of(sorted(row), 300) for row in places]
    expected = [slow_values(hits, k, [float(hit) for hit in hits]) for hits in lists]
    for name, values in values_of(ranks_of(*map(sorted, places)), k, np.ones(1)).items():
        wanted = [of_query[name] for of_query in expected]
        np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-12, err_msg=name)


@settings(max_examples=100, deadline=None)
@given(
    ranks=st.sets(st.integers(1, 50), min_size=1, max_size=20),
    k=st.integers(1, 60),
    moved=st.randoms(use_true_random=False),
)
def test_what_must_hold_of_any_list(ranks, k, moved):
    """Orders between the conventions, and no metric that falls when a positive moves up."""
    before = ranks_of(sorted(ranks))
    rectangular, trapezoidal = (metrics.average_precision(before, kind)[0] for kind in KINDS)
    assert 0 <= trapezoidal <= rectangular <= 1
    relevant, found, least = (
        metrics.average_precision(before, "rectangular", k, divisor)[0] for divisor in DIVISORS
    )
    assert relevant <= least <= found + 1e-15 and relevant <= rectangular + 1e-15
    assert metrics.map_at_r(before)[0] <= metrics.r_precision(before)[0]
    assert metrics.recall_at(before, k)[0] <= metrics.hit_at(before, k)[0]
    assert metrics.recall_at(before, len(ranks))[0] == metrics.r_precision(before)[0]
    free = [rank for rank in range(1, max(ranks)) if rank not in ranks]
    if not free:
        for values in values_of(before, 60, np.ones(1)).values():
            assert values[0] == pytest.approx(1)
        return
    better = moved.choice(free)
    worse = moved.choice([rank for rank in ranks if rank > better])
    after = ranks_of(sorted(ranks - {worse} | {better}))
    old, new = values_of(before, k, np.ones(1)), values_of(after, k, np.ones(1))
    for name in old.keys() - {"first_rank"}:
        if "found" not in name:  # that one does not fall when positives are missed
            assert new[name][0] >= old[name][0] - 1e-15, name
    assert new["first_rank"][0] <= old["first_rank"][0]


@pytest.mark.parametrize("ties", ["optimistic", "pessimistic"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), gallery=st.integers(1, 40))
def test_no_metric_sees_the_order_of_the_gallery(ties, seed, gallery):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (4 + gallery, 2)).astype(np.float32)
    positives, junk = some_lists(rng, 4, gallery)
    order = rng.permutation(gallery)
    place = np.argsort(order)
    outcomes = []
    for searched, moved in ((rows[4:], np.arange(gallery)), (rows[4:][order], place)):
        ranks = positive_ranks(
            rows[:4], searched, Csr.from_lists([moved[p].tolist() for p in positives]),
            Csr.from_lists([moved[j].tolist() for j in junk]), ties=ties,
        )  # fmt: skip
        outcomes.append(values_of(ranks, 3, np.ones(gallery)))
        assert ranks.n_gallery.tolist() == [gallery - len(j) for j in junk]
    for name, values in outcomes[0].items():
        np.testing.assert_array_equal(values, outcomes[1][name], err_msg=name)


def test_a_gallery_of_copies_by_hand():
    """Ten copies of the query, rows 1, 4 and 8 right: the tie rule alone decides."""
    rows = np.tile(np.float32([[0.3, -2, 5]]), (10, 1))
    lists = Csr.from_lists([[8, 1, 4]]), Csr.from_lists([[0]])
    places = {"by-id": [1, 4, 8], "optimistic": [1, 2, 3], "pessimistic": [7, 8, 9]}
    for ties, expected in places.items():
        ranks = positive_ranks(rows[:1], rows, *lists, ties=ties)
        assert ranks.rank.tolist() == expected and ranks.index.tolist() == [1, 4, 8]
    assert metrics.average_precision(ranks) == pytest.approx((1 / 7 + 2 / 8 + 3 / 9) / 3)


def test_junk_is_as_if_it_were_not_there():
    """Take the junk out of the gallery by hand: the same ranks and values, for every query."""
    rng = np.random.default_rng(3)
    rows = rng.integers(-2, 3, (66, 3)).astype(np.float32)
    positives, junk = some_lists(rng, 6, 60)
    whole = positive_ranks(
        rows[:6], rows[6:], Csr.from_lists(positives), Csr.from_lists(junk), ties="by-id"
    )
    for q in range(6):
        kept = [g for g in range(60) if g not in junk[q]]
        alone = positive_ranks(
            rows[q : q + 1], rows[6:][kept],
            Csr.from_lists([[kept.index(p) for p in positives[q]]]), Csr.empty(1),
        )  # fmt: skip
        own = slice(whole.indptr[q], whole.indptr[q + 1])
        np.testing.assert_array_equal(whole.rank[own], alone.rank)
        np.testing.assert_array_equal(whole.index[own], np.array(kept, int)[alone.index])


def test_metrics_read_nothing_but_the_ranks():
    """The similarities, the negatives and the size of the gallery are for others."""
    ranks = ranks_of([2, 3], [], [1])
    blank = {
        field.name: np.full_like(getattr(ranks, field.name), -7)
        for field in fields(Ranks)
        if field.name not in ("indptr", "rank", "index")
    }
    for name, values in values_of(ranks, 2, np.ones(1)).items():
        other = values_of(replace(ranks, **blank), 2, np.ones(1))[name]
        np.testing.assert_array_equal(values, other)


def single_shot_set(rng: np.random.Generator) -> tuple[np.ndarray, ImageSet]:
    """6 queries of each of 5 objects; galleries of 1 to 5 images an object, 3 of none."""
    objects = [str(o) for o in range(5) for _ in range(6)]
    roles = ["query"] * len(objects)
    objects += [str(o) for o in range(5) for _ in range(o + 1)] + [None] * 3
    roles += ["gallery"] * (len(objects) - len(roles))
    frame = pl.DataFrame(
        {"path": [f"{i}.jpg" for i in range(len(objects))], "object": objects, "role": roles}
    )
    rows = rng.normal(size=(len(objects), 3)).astype(np.float32)
    return rows, ImageSet(normalise(frame), Path("."))


def test_single_shot_cmc_is_the_mean_over_the_draws():
    rows, images = single_shot_set(np.random.default_rng(4))
    protocol = named("single-shot")
    assert (protocol.gallery_images, protocol.repeats) == (1, 100)
    scores = evaluate(rows, images, protocol=protocol)
    objects, roles = images.table["object"].to_list(), images.table["role"].to_list()
    matrix = ranking.similarities(rows, rows)
    curves, drawn = [], set()
    assert [part.repeat for part in scores.parts] == list(range(100))
    for part in scores.parts:
        gallery = part.matches.gallery.tolist()
        assert sorted(objects[g] or "" for g in gallery) == ["", "", "", *"01234"]
        assert all(roles[g] == "gallery" for g in gallery)
        drawn.update(gallery)
        lists = []
        for q in (i for i, role in enumerate(roles) if role == "query"):
            order = sorted(gallery, key=lambda g, q=q: (-matrix[q, g], g))
            lists.append([objects[g] == objects[q] for g in order])
        curves.append(slow.cmc(lists, 8))
    np.testing.assert_allclose(scores.cmc(8), np.mean(curves, axis=0), rtol=0, atol=1e-12)
    assert scores.cmc(8)[-1] == 1 and len({tuple(curve) for curve in curves}) > 10
    assert drawn == {i for i, role in enumerate(roles) if role == "gallery"}  # each has its turn
    again = evaluate(rows, images, protocol=protocol)
    assert again.per_query.equals(scores.per_query)
    other = evaluate(rows, images, protocol=replace(protocol, seed=1))
    assert not other.per_query.equals(scores.per_query)


def test_a_perfect_list_is_one_everywhere():
    ranks = ranks_of([1, 2, 3])
    for kind in KINDS:
        assert metrics.average_precision(ranks, kind) == 1
    assert metrics.inverse_negative_penalty(ranks) == 1


def test_queries_without_a_positive_are_left_out_of_the_mean():
    ranks = ranks_of([], [2], [], [1, 4], [])
    ap = metrics.average_precision(ranks)
    np.testing.assert_allclose(ap, [np.nan, 0.5, np.nan, (1 + 2 / 4) / 2, np.nan])
    assert metrics.mean(ap) == (0.5 + 0.75) / 2
    np.testing.assert_allclose(metrics.cmc(ranks, 4), [0.5, 1, 1, 1])
    assert metrics.mean(metrics.hit_at(ranks, 1)) == 0.5
    for name, values in values_of(ranks, 2, np.ones(1)).items():
        assert np.isnan(values).tolist() == [True, False, True, False, True], name


def test_the_curve_is_recall_at_every_cutoff():
    rng = np.random.default_rng(0)
    ranks = ranks_of(*(sorted(rng.choice(20, 3, replace=False) + 1) for _ in range(50)))
    curve = metrics.cmc(ranks, 15)
    assert curve.tolist() == [metrics.mean(metrics.hit_at(ranks, k)) for k in range(1, 16)]


def test_nothing_to_average():
    for ranks in (ranks_of([], []), ranks_of()):
        for values in values_of(ranks, 3, np.ones(1)).values():
            assert len(values) == len(ranks) and np.isnan(metrics.mean(values))
        assert np.isnan(metrics.cmc(ranks, 3)).all()


def test_gains_that_are_all_zero_give_zero():
    ranks = ranks_of([1, 3], [], [2])
    np.testing.assert_array_equal(
        metrics.ndcg(ranks, np.array([0.0, 0, 1])), [0, np.nan, 1 / np.log2(3)]
    )


@pytest.mark.parametrize("gains", [[1.0], [1.0, -1.0], [[1.0, 1.0]]])
def test_gains_that_do_not_fit_are_refused(gains):
    with pytest.raises(ValueError, match="gains"):
        metrics.ndcg(ranks_of([1, 2]), np.array(gains))


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="rectangular"):
        metrics.average_precision(ranks_of([1]), "interpolated")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="relevant, found, min"):
        metrics.average_precision(ranks_of([1]), at=5, divisor="k")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 or more"):
        metrics.average_precision(ranks_of([1]), at=0)
