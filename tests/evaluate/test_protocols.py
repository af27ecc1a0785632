"""Which protocol an image set gets, and the lists that it turns into."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import retrieval

from resight.data.imageset import normalise
from resight.errors import UserError
from resight.evaluate.protocols import Protocol
from resight.evaluate.rules.truth import chosen_for, matches


def choose(rows, level="image", cross_camera=None, usable=None) -> Protocol:
    return chosen_for(rows, level, cross_camera, usable)


def lists(found, q: int) -> tuple[list[int], list[int]]:
    """Positives and junk of one query."""
    positives, junk = found.truth.lists(q, q + 1)
    assert len(positives.indices) == found.truth.counts()[q]
    return positives.indices.tolist(), junk.indices.tolist()


def table(*rows: tuple) -> pl.DataFrame:
    """Rows of (object, camera, split, role)."""
    names = ("object", "camera", "split", "role")
    frame = pl.DataFrame(
        [(f"{i}.jpg", *row) for i, row in enumerate(rows)],
        schema=dict.fromkeys(("path", *names), pl.String), orient="row",
    )  # fmt: skip
    return normalise(frame)


def test_leave_one_out_where_no_row_has_a_role():
    rows = table(("a", None, None, None), ("a", None, None, "both"), ("b", None, None, None))
    assert choose(rows) == Protocol("leave-one-out")
    assert choose(rows, "object") == Protocol("leave-one-out", level="object")
    assert choose(rows).name == "leave-one-out"


def test_test_rows_only_and_roles_of_those_only():
    rows = table(
        ("a", None, "train", "query"), ("a", None, "train", "gallery"),
        ("b", None, "test", None), ("b", None, "test", None), ("b", None, None, "gallery"),
    )  # fmt: skip
    protocol = choose(rows)
    assert protocol == Protocol("leave-one-out", split="test")
    found = matches(rows, protocol)
    assert found.queries.tolist() == [2, 3] and found.gallery.tolist() == [2, 3]


def test_only_train_and_val_rows_are_an_error():
    with pytest.raises(UserError, match="all train or val, none is test"):
        choose(table(("a", None, "train", None), ("a", None, "val", None)))


def test_market_junk_rule_by_hand():
    """Query: object a, camera 1. Gallery, in order: a/1 is junk, a/2 positive, b/1 negative,
    an a of unknown camera positive, an unknown object under camera 1 a distractor.
    """
    rows = table(
        ("a", "1", None, "query"), ("a", "1", None, "gallery"), ("a", "2", None, "gallery"),
        ("b", "1", None, "gallery"), ("a", None, None, "gallery"), (None, "1", None, "gallery"),
    )  # fmt: skip
    protocol = choose(rows)
    assert (
        protocol.name == "cross-camera"
        and protocol.title == "query-gallery, cross-camera"
        and not protocol.notes
    )
    found = matches(rows, protocol)
    assert found.queries.tolist() == [0] and found.gallery.tolist() == [1, 2, 3, 4, 5]
    assert lists(found, 0) == ([1, 3], [0])
    off = matches(rows, choose(rows, cross_camera=False))
    assert lists(off, 0) == ([0, 1, 3], [])


def test_the_rule_is_off_with_a_note_where_it_would_leave_nothing():
    rows = table(("a", "1", None, None), ("a", "1", None, None), ("b", "2", None, None))
    protocol = choose(rows)
    assert not protocol.cross_camera and "cross-camera rule off" in protocol.notes[0]
    with pytest.raises(UserError, match="switch the cross-camera rule off"):
        matches(rows, choose(rows, cross_camera=True))


def test_a_row_that_is_both_never_retrieves_itself():
    rows = table(("a", None, None, "both"), ("a", None, None, "gallery"), ("b", None, None, None))
    found = matches(rows, choose(rows))
    assert found.queries.tolist() == [0] and found.without_match == 1
    assert lists(found, 0) == ([1], [0])


def test_unknown_objects_are_distractors():
    rows = table(("a", None, None, None), (None, None, None, None), ("a", None, None, None))
    found = matches(rows, choose(rows))
    assert found.queries.tolist() == [0, 2] and found.gallery.tolist() == [0, 1, 2]
    assert found.unknown == 1


def test_rows_that_are_not_usable_take_no_part():
    rows = table(*[("a", None, None, None)] * 3)
    usable = np.array([True, False, True])
    found = matches(rows, choose(rows, usable=usable), usable)
    assert found.queries.tolist() == found.gallery.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([(None, None, None, None)] * 2, "no query's object is known"),
        ([("a", None, None, "gallery")] * 2, "no image is a query"),
        ([("a", None, None, "query")] * 2, "gallery is empty"),
        ([("a", None, None, None), ("b", None, None, None)], "single image"),
        ([("a", None, None, "query"), ("b", None, None, "gallery")], "none of the queries'"),
    ],
)
def test_no_match_says_why(rows, reason):
    rows = table(*rows)
    with pytest.raises(UserError, match=reason) as error:
        matches(rows, choose(rows))
    assert "\n" not in str(error.value)


def test_a_protocol_survives_json():
    protocol = Protocol(
        "query-gallery", level="object", cross_camera=True, split="test", notes=("why",)
    )
    back = Protocol.from_dict(json.loads(json.dumps(protocol.to_dict())))
    assert back == protocol and back.notes == protocol.notes and hash(back) == hash(protocol)


@pytest.mark.parametrize("plain", [{}, {"mode": "query-gallery", "colour": 1}, {"mode": "one-out"}])
def test_a_wrong_protocol_is_refused(plain):
    with pytest.raises(UserError, match="protocol:"):
        Protocol.from_dict(plain)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", None]),
            st.sampled_from(["1", "2", None]),
            st.none(),
            st.sampled_from(["query", "gallery", "both", None]),
        ),
        min_size=1, max_size=25,
    ),
    cross_camera=st.booleans(),
    roles=st.booleans(),
)  # fmt: skip
def test_lists_equal_a_double_loop(rows, cross_camera, roles):
    frame = table(*rows)
    mode = "query-gallery" if roles else "leave-one-out"
    expected = retrieval.lists(frame.to_dicts(), cross_camera, roles)
    asked = [found for found in expected if found["positives"]]
    protocol = Protocol(mode, cross_camera=cross_camera)
    if not asked:
        with pytest.raises(UserError):
            matches(frame, protocol)
        return
    found = matches(frame, protocol)
    assert found.queries.tolist() == [one["query"] for one in asked]
    assert found.without_match == len(expected) - len(asked)
    for q, one in enumerate(asked):
        assert found.gallery.tolist() == one["gallery"]
        positives, junk = lists(found, q)
        assert found.gallery[positives].tolist() == one["positives"]
        assert found.gallery[junk].tolist() == one["junk"]
