"""The line that says what an epoch will be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from resight.sampling.balanced import balanced_batches
from resight.sampling.plan import describe
from sampling.sets import sets, visits


def draws(*batches):
    return [[(row, 0) for row in batch] for batch in batches]


@pytest.mark.parametrize(
    ("labels", "batches", "said"),
    [
        ([1], [], "each epoch: no batch"),
        (
            [5, 5, 9, 9],
            draws([0, 1, 2, 3]),
            "each epoch: 1 batch of 2 objects × 2 images; each object is seen once an epoch",
        ),
        (
            [5, 5, 9],
            draws([0, 1, 2], [2, 1, 0]),
            "each epoch: 2 batches of up to 2 objects × 2 images; "
            "each object is seen twice an epoch; "
            "1 object has a single image and serves as a negative only; "
            "3 images are drawn twice to fill the batches",
        ),
        (
            [0, 0, 1, 2, 2, 2],
            draws([0, 1, 2], [0, 1, 2], [0, 1, 3, 4]),
            "each epoch: 3 batches of up to 2 objects × 2 images; "
            "each object is seen about 2.0 times an epoch (1 to 3); "
            "1 object has a single image and serves as a negative only; "
            "3 images are drawn up to 3 times to fill the batches; 1 image is not used",
        ),
        (
            [0] * 3 + [1],
            draws([0, 3], [1, 3], [2, 3]),
            "each epoch: 3 batches of 2 objects × 1 image; "
            "each object is seen 3 times an epoch; "
            "1 object has a single image and serves as a negative only; "
            "1 image is drawn up to 3 times to fill the batches",
        ),
    ],
)
def test_lines(labels, batches, said):
    assert describe(labels, batches) == said


def test_thousands():
    labels = [k for k in range(4000) for _ in range(4)] + list(range(4000, 5200))
    said = describe(labels, balanced_batches(labels, ids=4, images=4, seed=0, epoch=0))
    assert said == (
        "each epoch: 1,300 batches of up to 4 objects × 4 images; each object is seen once an "
        "epoch; 1,200 objects have a single image and serve as negatives only"
    )


@settings(max_examples=50, deadline=None)
@given(case=sets())
def test_visits_are_those_of_the_batches(case):
    labels, options = case
    batches = balanced_batches(labels, **options)
    said = describe(labels, batches)
    seen = visits(labels, batches)
    if len(set(seen.values())) > 1:
        mean = seen.total() / len(seen)
        shown = f"{mean:.1f}" if mean < 10 else f"{mean:.0f}"
        assert (
            f"about {shown} times an epoch ({min(seen.values())} to {max(seen.values())})" in said
        )
    assert "not used" not in said
