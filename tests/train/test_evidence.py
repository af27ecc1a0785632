"""The evidence of unlabelled training: its numbers against plain loops, its pages, its warnings."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pages import Page
from pictures import noise
from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.features.store import Features
from resight.graph.pool import build_pool
from resight.mining.look import Look
from resight.mining.memory import MemoryBank
from resight.mining.positives import Mined, Mining
from resight.train.loop import LoopOptions, Watcher
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.unlabelled import quality
from resight.train.unlabelled.insclr.evidence import Evidence, gather, write_index, write_stage
from resight.train.unlabelled.insclr.record import Means, Similarities
from resight.train.unlabelled.insclr.seen import Seen, choose, means
from resight.train.unlabelled.insclr.words import sentences, thresholds, warnings
from resight.train.unlabelled.stage import Ground, Stage

HOSTILE = "<script>alert('1')</script>&\"x\""
OBJECTS, EACH, DIM = 8, 6, 16
UNKNOWN, BROKEN, COPY = (3, 20), 47, 46  # rows
PAPER = {"calibrate": None, "neighbours": 3, "views": 1, "mining": Mining().model_dump()}


# Numbers, against loops.


@st.composite
def neighbourhoods(draw):
    """neighbours (N, k) without repetitions, -1 at the end; labels with unknown ones."""
    n, k = draw(st.integers(2, 12)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    near = np.full((n, k), -1)
    for row in range(n):
        others = rng.permutation([j for j in range(n) if j != row])[: rng.integers(0, k + 1)]
        near[row, : len(others)] = others
    return near, rng.integers(-1, 3, n), rng.random(n) < 0.7, rng


@settings(max_examples=60, deadline=None)
@given(neighbourhoods())
def test_neighbours_and_shares_are_those_of_plain_loops(world):
    near, labels, usable, _ = world
    n, rows = len(near), np.flatnonzero(usable)
    top, columns = quality.first_neighbours(near, rows, usable, 3)
    fit = {r: [int(j) for j in near[r] if j >= 0 and usable[j]][:3] for r in rows}
    for row, found, column in zip(rows, top, columns, strict=True):
        assert [j for j in found if j >= 0] == fit[row]
        assert [near[row, c] for c in column if c >= 0] == fit[row]

    pairs = [labels[r] == labels[j] for r in rows for j in fit[r] if min(labels[[r, j]]) >= 0]
    assert quality.precision(labels, rows, top) == (
        pytest.approx(np.mean(pairs)) if pairs else None
    )
    shares = [np.mean([r in fit[j] for j in fit[r]]) for r in rows if fit[r]]
    assert quality.mutual(top, rows, n) == (pytest.approx(np.mean(shares)) if shares else None)

    parts = []
    for row in rows:
        own = {j for j in range(n) if j != row and usable[j] and labels[j] == labels[row]}
        if labels[row] >= 0 and own:
            parts.append(len(own & set(near[row].tolist())) / len(own))
    found = [near[row] for row in rows]
    assert quality.recall(labels, usable, rows, found) == (
        pytest.approx(np.mean(parts)) if parts else None
    )


@settings(max_examples=30, deadline=None)
@given(neighbourhoods())
def test_agreement_with_itself_and_with_any_order(world):
    near, _, _, rng = world
    asked = (near >= 0).any()
    assert quality.agreement(near, near[:, ::-1]) == (1 if asked else None)
    other = rng.permuted(near, axis=0)
    loops = [
        np.mean([j in other[r] for j in near[r] if j >= 0])
        for r in range(len(near))
        if (near[r] >= 0).any()
    ]
    assert quality.agreement(near, other) == (pytest.approx(np.mean(loops)) if loops else None)


def test_many_rows_and_neighbours_far_down_the_list():
    rng = np.random.default_rng(0)
    n = 200
    near = np.array([rng.permutation(np.delete(np.arange(n), r)) for r in range(n)])
    usable = rng.random(n) < 0.05
    top, columns = quality.first_neighbours(near, np.arange(n), usable, 4)
    for row in range(n):
        wanted = [j for j in near[row] if usable[j]][:4]
        assert [j for j in top[row] if j >= 0] == wanted
        assert [near[row, c] for c in columns[row] if c >= 0] == wanted


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8, 9, 300])
def test_random_pairs_are_different_pairs_of_different_things(n):
    first, second = quality.random_pairs(n, 1000, seed=1)
    pairs = {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert len(pairs) == len(first) == min(1000, n * (n - 1) // 2)
    assert all(len(pair) == 2 for pair in pairs)


def test_histogram_and_separation():
    values = np.array([-1.0, 1.0, 1.0000001, 0.5, np.nan], np.float32)
    counts = quality.histogram(values)
    assert len(counts) == len(quality.BINS) - 1 == 80
    assert counts[0] == 1 and counts[-1] == 2 and counts[60] == 1 and sum(counts) == 4
    assert quality.above(np.array([0.1, 0.2, 0.9]), np.array([0.5, 0.8, 0.95])) == 1 / 3
    assert quality.above(np.array([]), np.array([0.5])) is None


def test_a_hub_is_near_many_but_in_a_small_collection_everyone_is():
    rng = np.random.default_rng(0)
    top = rng.integers(0, 1000, (1000, 10))
    assert quality.hubs(top, 1000) == []
    top[:150, 0], top[:200, 1] = 7, 5
    assert [row for row, _ in quality.hubs(top, 1000)] == [5, 7]
    assert quality.hubs(np.arange(11).repeat(10).reshape(11, 10), 11) == []


def test_codes_leave_the_unknown_out():
    codes = quality.codes(pl.Series(["b", None, "a", "b"], dtype=pl.String))
    assert codes.tolist() == [1, -1, 0, 1]
    assert quality.codes(pl.Series([None, None], dtype=pl.String)).tolist() == [-1, -1]


# Single anchors.


def tuple_of(anchor: int, kept: int, states: list[int], joined: list[int]) -> Seen:
    """An anchor with 3 neighbours, and candidates from row 10 on."""
    count = len(states)
    mined = Mined(
        10 + np.arange(count),
        np.linspace(0.1, 0.9, count, dtype=np.float32),
        np.array(states, np.int8),
        np.array(joined, np.int8),
    )
    stays = np.arange(4) <= kept
    similarities = np.array([1, 0.9, 0.8, 0.7], np.float32)
    return Seen(np.array([anchor, 1, 2, 3]), stays, similarities, mined)


def test_means_count_each_group():
    seen = [
        tuple_of(0, 2, [1, 1, 1, 0, -1, -1], [0, 1, 3, -1, -1, -1]),
        tuple_of(4, 0, [1, -1, -1, -1], [1, -1, -1, -1]),
    ]
    found = means(seen)
    assert (found.asked, found.kept, found.kept_share) == (3, 1, 1 / 3)
    assert (found.initial, found.joined, found.undecided, found.hard) == (0.5, 1.5, 0.5, 2.5)
    assert found.by_round == [1, 0, 0.5] and found.mined == 2
    assert seen[0].positives.tolist() == [1, 2, 10, 11, 12]
    without = means([replace(one, mined=None) for one in seen])
    assert without.mined is None and without.kept == 1


def test_a_sample_shows_the_nearest_and_some_of_each_round():
    one = tuple_of(0, 1, [1] * 30 + [-1] * 40, [1] * 20 + [2] * 9 + [4] + [-1] * 40).sample()
    assert one.counts == {
        "kept": 1, "filtered": 2, "initial": 0, "joined": 30, "undecided": 0, "hard": 40,
    }  # fmt: skip
    assert [item.row for item in one.items["hard"]] == list(range(79, 67, -1))
    rounds = [item.round for item in one.items["joined"]]
    assert len(rounds) == 12 and rounds == sorted(rounds) and set(rounds) == {1, 2, 4}
    assert [item.row for item in one.items["filtered"]] == [2, 3]


def test_samples_are_mixed():
    seen = [tuple_of(100 + k, 3 * (k % 2), [k % 2] * (k % 40), [0] * (k % 40)) for k in range(80)]
    labels = np.full(200, -1)
    labels[[100 + 11, 1, 2, 3]] = [0, 1, 0, 0]  # one wrong neighbour, of one anchor only
    chosen = choose(seen, labels)
    numbers = [len(seen[k].positives) for k in chosen]
    assert len(set(chosen)) == 12 and numbers == sorted(numbers, reverse=True)
    assert numbers[0] == 42 and numbers[-1] == 0 and min(n for n in numbers if n) < 10
    assert 11 in chosen
    assert choose(seen[:5]) and sorted(choose(seen[:5])) == list(range(5))


# A stage.


def world(folder: Path, *, labelled: bool = True, **changes) -> tuple[Stage, Ground, list[str]]:
    """8 objects × 6 images as vectors: one image broken, one a copy, two of unknown object."""
    rng = np.random.default_rng(3)
    count = OBJECTS * EACH
    centres = rng.normal(size=(OBJECTS, DIM))
    vectors = centres.repeat(EACH, 0) + 0.55 * rng.normal(size=(count, DIM))
    vectors[BROKEN] = np.nan
    valid = np.arange(count) != BROKEN
    names = [HOSTILE, *"bcdefgh"]
    objects = [names[k // EACH] if labelled and k not in UNKNOWN else None for k in range(count)]
    table = pl.DataFrame({"path": [f"{HOSTILE}{k}.jpg" for k in range(count)], "object": objects})
    images = ImageSet(normalise(table), folder, source="<i>set</i>")
    own = InsCLRSettings.model_validate(PAPER | changes)
    told: list[str] = []
    stage = Stage(1, folder / "stage-1", own, images, LoopOptions(), Watcher(tell=told.append))
    stage.folder.mkdir(parents=True)
    features = Features(images, (vectors.astype(np.float32),), valid)
    pool = build_pool(features, None, k=20, valid=valid)
    rows = np.flatnonzero(valid & (np.arange(count) != COPY))
    return stage, Ground(features, pool, rows, own), told


def units(ground: Ground) -> np.ndarray:
    vectors = np.asarray(ground.features, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_numbers_of_a_stage_are_those_of_plain_loops(tmp_path):
    stage, ground, told = world(tmp_path)
    found = gather(stage, ground, None)
    assert (found.images, found.rows, found.unusable, found.copies) == (48, 46, 1, 1)
    assert found.anchors == 46 and found.by == "pool"
    cosine, names = units(ground) @ units(ground).T, stage.images.table["object"].to_list()
    usable = set(ground.rows.tolist())

    stays, right, first, mutual = [], [], [], []
    near = {a: sorted(usable - {a}, key=lambda j, a=a: -cosine[a, j])[:10] for a in usable}
    for a in ground.rows:
        kept = [j for j in near[a][:3] if cosine[a, j] >= 0.6]
        stays.append(len(kept))
        right += [names[a] == names[j] for j in kept if names[a] and names[j]]
        first += [names[a] == names[near[a][0]]] if names[a] and names[near[a][0]] else []
        mutual.append(np.mean([a in near[j] for j in near[a]]))
    assert found.means.asked == 3 and found.means.kept == pytest.approx(np.mean(stays))
    assert 0 < found.means.kept < 3
    assert found.checked.kept == pytest.approx(np.mean(right))
    assert found.checked.first["1"] == pytest.approx(np.mean(first))
    assert found.mutual == pytest.approx(np.mean(mutual))
    nearest = [cosine[a, near[a][0]] for a in ground.rows]
    assert found.similarities.nearest_median == pytest.approx(np.median(nearest), abs=1e-3)
    random = [cosine[a, b] for a, b in combinations(ground.rows, 2)]
    assert found.similarities.random_mean == pytest.approx(np.mean(random), abs=1e-5)
    assert sum(found.similarities.random) == len(random)
    assert found.checked.recall <= found.checked.reachable <= 1
    assert found.means.mined > 0 and found.checked.anchors == 44
    assert sum(found.similarities.mined) == round(found.means.mined * 46)
    assert told and all("\n" not in line for line in told)


def test_what_training_left_in_memory_is_what_is_looked_at(tmp_path):
    stage, ground, _ = world(tmp_path)
    before = gather(stage, ground, None)
    bank = MemoryBank.create(stage.folder / "memory", 48, DIM, seed=0)
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, DIM)).repeat(48, 0).astype(np.float32)
    bank.write(np.arange(48), plain=one)  # collapsed: all the same
    found = gather(stage, ground, None)
    assert found.by == "memory" and found.means.kept == 3 > before.means.kept
    assert found.means.mined > before.means.mined
    assert found.similarities.nearest == before.similarities.nearest  # the pool is as it was


def test_the_stage_before_and_stages_without_parts(tmp_path):
    stage, ground, _ = world(tmp_path, select=None, mining=None)
    assert gather(stage, ground, None).as_before is None
    second = replace(stage, number=2, folder=tmp_path / "stage-2")
    build_pool(ground.features, tmp_path / "stage-1" / "pool", k=20, valid=ground.features.valid)
    found = gather(second, ground, None)
    assert found.as_before == 1 and found.means.mined is None and found.checked.mined is None
    assert found.means.kept == 3 and not any(found.similarities.mined)
    alone = replace(ground, settings=ground.settings.model_copy(update={"neighbours": 0}))
    found = gather(stage, alone, None)
    assert found.means.asked == 0 and found.means.kept_share is None and sentences(found)
    write_stage(tmp_path / "out", found, stage.images, load_thumbnail=lambda row: None)


def test_without_labels_nothing_is_checked(tmp_path):
    stage, ground, told = world(tmp_path, labelled=False)
    found = gather(stage, ground, None)
    assert found.checked is None and "label" not in " ".join(told)
    write_stage(stage.folder, found, stage.images, load_thumbnail=lambda row: noise(row))
    text = (stage.folder / "evidence.html").read_text()
    assert "✓" not in text and 'class="wrong"' not in text and "anchor's object" not in text


def test_labels_change_what_is_checked_and_nothing_else(tmp_path):
    with_, without = (
        gather(*world(tmp_path / str(labelled), labelled=labelled)[:2], None)
        for labelled in (True, False)
    )
    same = {"checked": None, "samples": [], "seconds": 0}
    assert replace(with_, **same) == replace(without, **same)


# Files and pages.


def test_evidence_is_read_back_as_it_was_written(tmp_path):
    stage, ground, _ = world(tmp_path)
    found = gather(stage, ground, "nothing <to> learn from")
    write_stage(tmp_path / "out", found, stage.images, load_thumbnail=lambda row: None)
    assert Evidence.load(tmp_path / "out") == found
    assert "NaN" not in (tmp_path / "out/evidence.json").read_text()
    (tmp_path / "out/evidence.json").write_text('{"stage": 1}')
    with pytest.raises(UserError, match=r"evidence\.json: damaged"):
        Evidence.load(tmp_path / "out")
    with pytest.raises(UserError, match="not found"):
        Evidence.load(tmp_path / "nowhere")


def test_the_page_of_a_stage_stands_alone_and_escapes_names(tmp_path):
    stage, ground, _ = world(tmp_path)
    found = replace(gather(stage, ground, None), warnings=[f"mind {HOSTILE}"])
    path = write_stage(
        stage.folder,
        found,
        stage.images,
        load_thumbnail=lambda row: noise(row) if row % 5 else None,
    )
    assert path == stage.folder / "evidence.html"
    text = path.read_text()
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and HOSTILE not in text
    assert "<i>set</i>" not in text and "&lt;script&gt;" in text and "no picture" in text
    assert all(a.startswith(("data:image/jpeg;base64,", "#", "../")) for a in page.addresses)
    shown = sum(len(items) for one in found.samples for items in one.items.values())
    assert page.tags.count("figure") == shown + len(found.samples) and len(found.samples) == 12
    assert f"of {found.means.asked:.0f} nearest neighbours {found.means.kept:.1f} stay" in (
        text.lower()
    )
    assert f"{found.means.mined:.1f} further positives are mined" in text
    assert 'class="wrong"' in text and 'class="right"' in text


def test_outlines_tell_mistakes(tmp_path):
    stage, ground, _ = world(tmp_path)
    found = gather(stage, ground, None)
    write_stage(stage.folder, found, stage.images, load_thumbnail=lambda row: None)
    names, mistakes, right = stage.images.table["object"].to_list(), 0, 0
    for one in found.samples:
        for group, items in one.items.items():
            for item in items:
                own, theirs = names[one.anchor], names[item.row]
                if own is None or theirs is None or group == "undecided":
                    continue
                positive = group in ("kept", "initial", "joined")
                mistakes += (own == theirs) != positive
                right += own == theirs and positive
    text = (stage.folder / "evidence.html").read_text()
    assert mistakes and text.count('<figure class="wrong">') == mistakes
    assert right and text.count('<figure class="right">') == right


def test_a_page_stays_small_whatever_the_pictures(tmp_path):
    stage, ground, _ = world(tmp_path)
    found = gather(stage, ground, None)
    many = replace(found, samples=found.samples * 6)
    loud = noise(1, (96, 96))
    path = write_stage(stage.folder, many, stage.images, load_thumbnail=lambda row: loud)
    assert path.stat().st_size < 3_000_000 and "data:image" in path.read_text()


def test_the_page_over_the_stages(tmp_path):
    stage, ground, _ = world(tmp_path)
    one = gather(stage, ground, None)
    two = replace(one, stage=2, as_before=0.625, warnings=[f"mind {HOSTILE}"], checked=None)
    path = write_index(tmp_path / "evidence.html", [one, two], stage.images)
    text = path.read_text()
    page = Page(text)
    addresses = [a for a in page.addresses if not a.startswith("#")]
    assert addresses == ["stage-1/evidence.html", "stage-2/evidence.html"]
    assert "script" not in page.tags and "62.5 %" in text and page.tags.count("svg") == 2
    assert f"<td>{100 * one.checked.mined:.1f} %</td><td>–</td>" in text
    text = write_index(path, [two], stage.images).read_text()
    assert Page(text).tags.count("svg") == 1 and "recall of positives" not in text


# Warnings.


FIXED = InsCLRSettings.model_validate(PAPER)


def alike(random_mean: float, above: float = 0.1) -> Similarities:
    return Similarities([], [], [], random_mean, 0.8, above)


GOOD = Means(asked=3, kept=2, initial=1.0, joined=2.0, by_round=[2.0], undecided=1, hard=5)


def test_no_warning_without_reason():
    assert warnings(FIXED, 1000, 500, GOOD, alike(0.1), []) == []
    little = replace(GOOD, kept=0.2, initial=0.0, joined=0.0)  # 7 % of the neighbours stay
    assert warnings(FIXED, 1000, 0, little, alike(0.1), []) == []


@pytest.mark.parametrize(
    ("means_", "random", "copies", "hubs", "words"),
    [
        (replace(GOOD, kept=0.1, initial=0.0, joined=0.04), 0.1, 0, [], "lower select.threshold"),
        (GOOD, 0.61, 0, [], "similarity of 0.61 on average"),
        (replace(GOOD, joined=331.0), 0.1, 0, [], "334.0 positives among 1,000 images"),
        (GOOD, 0.1, 0, [("grey.jpg", 412), ("b.jpg", 300)], "grey.jpg is among .* 1 more"),
        (GOOD, 0.1, 501, [], "501 of 1,000 images are near-duplicates"),
    ],
)
def test_each_warning_is_one_sentence(means_, random, copies, hubs, words):
    found = warnings(FIXED, 1000, copies, means_, alike(random), hubs)
    assert len(found) == 1
    assert re.search(words, found[0]) and not found[0].endswith(".")


def test_warnings_speak_of_the_settings_that_count():
    following = FIXED.model_copy(update={"calibrate": 1.0, "whiten": None})
    few = replace(GOOD, kept=0.1, initial=0.0, joined=0.0)
    assert "raise calibrate" in warnings(following, 1000, 0, few, alike(0.1), [])[0]
    many = warnings(following, 1000, 0, replace(GOOD, joined=400.0), alike(0.1), [])[0]
    assert many.endswith("lower calibrate, or set whiten=auto")
    collapsed = warnings(following, 1000, 0, GOOD, alike(0.5, above=0.31), [])
    assert len(collapsed) == 1 and "31.0 % of random pairs" in collapsed[0]


def test_thresholds_are_those_in_force(tmp_path):
    stage, ground, _ = world(tmp_path)
    found = gather(stage, ground, None).thresholds
    assert found["select.threshold"] == "0.6" and "select.top" not in found
    assert found["mining.rule.top"] == "5" and "mining.rule.threshold" not in found
    assert found["mining.initial_at"] == "0.75" and found["spatial"] == "none"
    look = Look(ground.pool, lambda rows: units(ground)[rows], None, None).at(0.1, 0.2)
    assert thresholds(FIXED, look)["select"] == thresholds(FIXED, look)["mining"] == "none"
    look = replace(look, select=FIXED.select, mining=FIXED.mining).at(0.123456, 0.2)
    assert thresholds(FIXED, look)["select.threshold"] == "0.1235"
