"""CTL in its three variants, batch-hard triplet and centre loss, against loops over images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import losses as oracle

from resight.losses.center import CenterLoss
from resight.losses.ctl import CentroidTripletLoss
from resight.losses.triplet import TripletLoss

LOSSES: dict[str, tuple[Callable, Callable, float]] = {
    "official": (lambda m: CentroidTripletLoss("official", m), oracle.ctl_official, 0.5),
    "paper": (lambda m: CentroidTripletLoss("paper", m), oracle.ctl_paper, 0.5),
    "all": (lambda m: CentroidTripletLoss("all", m), oracle.ctl_all, 0.05),
    "triplet": (TripletLoss, lambda f, y, m: oracle.batch_hard(f, y, m), 0.5),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@st.composite
def batches(draw, least_ids: int = 1):
    """Ragged: ids of 1 to 5 images in any order; labels need not count from 0."""
    counts = draw(st.lists(st.integers(1, 5), min_size=least_ids, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = rng.permutation(50)[: len(counts)]
    labels = rng.permutation(np.repeat(names, counts))
    scale = draw(st.sampled_from([0.1, 1.0, 10.0]))
    features = rng.normal(size=(len(labels), draw(st.integers(1, 4)))) * scale
    return torch.from_numpy(features), torch.from_numpy(labels)


def grad(loss: Callable, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    features = features.clone().requires_grad_()
    loss(features, labels).backward()
    assert features.grad is not None
    return features.grad


@every_loss
@settings(max_examples=60, deadline=None)
@given(batch=batches(), margin=st.sampled_from([None, 0.0, 0.3, 4.0]))
def test_equals_the_loops(name, batch, margin):
    make, slow, default = LOSSES[name]
    features, labels = batch
    loss = make(margin if margin is not None else default)
    expected = slow(features.tolist(), labels.tolist(), default if margin is None else margin)
    # Duplicates aside, the only error is that of the expanded square: 1e-16 under a root.
    assert loss(features, labels).item() == pytest.approx(expected, rel=1e-9, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(batch=batches())
def test_center_equals_the_loops(batch):
    features, labels = batch
    loss = CenterLoss(50, features.shape[1]).double()
    expected = oracle.center(features.tolist(), labels.tolist(), loss.centers.tolist())
    assert loss(features, labels).item() == pytest.approx(expected, rel=1e-12)


def test_default_margins():
    assert [CentroidTripletLoss(v).margin for v in ("official", "paper", "all")] == [0.5, 0.5, 0.05]
    assert TripletLoss().margin == 0.5
    with pytest.raises(ValueError, match="none of official, paper, all"):
        CentroidTripletLoss("ours")  # type: ignore[arg-type]


def test_worked_by_hand():
    """Two ids on a line: 0 and 2, 3 and 5. The variants are three different losses.

    official: in both rounds the points are 0, 2 | 3, 5; the inner two lose by 2 - 1 + .5.
    paper: the inner two: 2² - 2² + .5; all: the same with .05, the outer two at 0.
    """
    features = torch.tensor([[0.0], [2], [3], [5]])
    labels = torch.tensor([0, 0, 1, 1])
    assert CentroidTripletLoss("official")(features, labels).item() == pytest.approx(0.75)
    assert CentroidTripletLoss("paper")(features, labels).item() == pytest.approx(0.25)
    assert CentroidTripletLoss("all")(features, labels).item() == pytest.approx(0.025)
    assert TripletLoss()(features, labels).item() == pytest.approx(0.75)


def test_variants_differ_on_one_batch_with_one_margin():
    rng = np.random.default_rng(5)
    features = torch.from_numpy(rng.normal(size=(16, 8)))
    labels = torch.arange(16) // 4
    values = [loss(0.5)(features, labels).item() for loss, _, _ in LOSSES.values()]
    assert min(abs(a - b) for i, a in enumerate(values) for b in values[:i]) > 0.01


@pytest.mark.parametrize("name", ["paper", "all", "triplet"])
@settings(max_examples=25, deadline=None)
@given(batch=batches(), seed=st.integers(0, 99))
def test_any_order_gives_the_same(name, batch, seed):
    features, labels = batch
    loss = LOSSES[name][0](0.5)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))
    value = loss(features[order], labels[order])
    assert value.item() == pytest.approx(loss(features, labels).item(), rel=1e-9, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(batch=batches(), seed=st.integers(0, 99))
def test_official_ids_may_be_interleaved_in_any_way(batch, seed):
    """Safe: a permutation that keeps the order of the images of each id."""
    features, labels = batch
    loss = CentroidTripletLoss()
    shuffled = np.random.default_rng(seed).permutation(labels.numpy())
    queues = {k: iter(rows) for k, rows in oracle.images_of(labels.tolist()).items()}
    order = torch.tensor([next(queues[label]) for label in shuffled.tolist()])
    value = loss(features[order], labels[order])
    assert value.item() == pytest.approx(loss(features, labels).item(), rel=1e-9, abs=1e-6)


def test_official_slots_may_be_renamed_for_all_ids_at_once_only():
    """Safe: the same permutation of the slots in ids of equal size. Not safe: in one id alone."""
    rng = np.random.default_rng(1)
    features = torch.from_numpy(rng.normal(size=(4, 3, 5)))  # id, slot, D
    labels = torch.arange(4).repeat_interleave(3)
    loss = CentroidTripletLoss()
    value = loss(features.flatten(0, 1), labels).item()
    everywhere = features[:, [2, 0, 1]]
    assert loss(everywhere.flatten(0, 1), labels).item() == pytest.approx(value, rel=1e-9)
    in_one = features.clone()
    in_one[0] = features[0, [2, 0, 1]]
    assert abs(loss(in_one.flatten(0, 1), labels).item() - value) > 1e-3


@every_loss
def test_names_of_ids_do_not_matter(name):
    rng = np.random.default_rng(2)
    features = torch.from_numpy(rng.normal(size=(12, 4)))
    labels = torch.from_numpy(rng.integers(0, 4, 12))
    loss = LOSSES[name][0](0.5)
    renamed = torch.tensor([900, 7, 31, 2])[labels]
    assert loss(features, renamed).item() == pytest.approx(loss(features, labels).item(), rel=1e-9)


def test_an_id_of_one_image_is_a_negative_or_nothing():
    rng = np.random.default_rng(3)
    features = torch.from_numpy(rng.normal(size=(7, 3)))
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    official, paper = CentroidTripletLoss("official"), CentroidTripletLoss("paper", 100)
    assert official(features, labels).item() == official(features[:6], labels[:6]).item()
    assert grad(official, features, labels)[6].abs().max() == 0
    near = features.clone()
    near[6] = near[0]  # the nearest negative of image 0 now
    assert paper(near, labels) > paper(near[:6], labels[:6])
    assert grad(paper, near, labels)[6].abs().max() > 0


@every_loss
@pytest.mark.parametrize(
    "labels", [[3, 3, 3, 3], [0, 1, 2, 3], [5]], ids=["one id", "all alone", "one image"]
)
def test_nothing_to_learn_is_zero_with_zero_gradient(name, labels):
    features = torch.randn(len(labels), 3, dtype=torch.float64, requires_grad=True)
    value = LOSSES[name][0](0.5)(features, torch.tensor(labels))
    value.backward()
    assert value.item() == 0 and value.shape == ()
    assert features.grad is not None and features.grad.abs().max() == 0


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["within an id", "across ids", "all", "zeros"])
def test_duplicates_have_finite_gradients(name, dtype, case):
    features = torch.randn(8, 16, generator=torch.Generator().manual_seed(0), dtype=dtype) * 10
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2])
    if case == "within an id":
        features[1], features[5], features[6] = features[0], features[4], features[4]
    elif case == "across ids":
        features[2], features[4] = features[0], features[0]
    elif case == "all":
        features[:] = features[0].clone()
    else:
        features.zero_()
    got = grad(LOSSES[name][0](0.5), features, labels)
    assert torch.isfinite(got).all()
    assert got.abs().max() < 1e3


@every_loss
@pytest.mark.parametrize("margin", [0.3, 50.0], ids=["some active", "all active"])
def test_gradients_are_right(name, margin):
    """Through queries and centroids alike: numerical against analytic, ragged ids, no ties."""
    features = torch.randn(11, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    labels = torch.tensor([4, 0, 0, 2, 4, 0, 2, 7, 4, 4, 9])
    loss = LOSSES[name][0](margin)
    assert torch.autograd.gradcheck(lambda f: loss(f, labels), features.requires_grad_())


def test_gradients_of_the_center_loss_are_right():
    loss = CenterLoss(3, 4).double()
    features = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 2, 0, 2])
    assert torch.autograd.gradcheck(lambda f: loss(f, labels), features)
    loss(features.detach(), labels).backward()
    assert loss.centers.grad is not None
    assert loss.centers.grad[1].abs().max() == 0  # an absent class stays where it is
    rows = loss.centers.detach()[0] - features.detach()[[0, 3]]
    torch.testing.assert_close(loss.centers.grad[0], 2 * rows.sum(0) / 5)


@every_loss
def test_single_precision_is_enough_at_the_size_of_real_features(name):
    """2048 dimensions, ids closer to their own than to others: the hinge sees differences."""
    generator = torch.Generator().manual_seed(6)
    ids = torch.randn(6, 1, 2048, generator=generator, dtype=torch.float64).abs()
    images = (ids + 0.2 * torch.randn(6, 4, 2048, generator=generator)).flatten(0, 1)
    labels = torch.arange(24) // 4
    loss = LOSSES[name][0](60.0 if name == "triplet" or name == "official" else 3000.0)
    exact = loss(images, labels)
    assert loss(images.float(), labels).item() == pytest.approx(exact.item(), rel=1e-4)
