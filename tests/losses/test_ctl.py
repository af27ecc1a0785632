"""Centroid triplet loss: values and gradients against loops, references, very ragged batches."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import losses as oracle

from resight.losses import ctl_rounds
from resight.losses.center import CenterLoss
from resight.losses.ctl import CentroidTripletLoss
from resight.losses.distance import hardest_pairs, hardest_triplets

SLOW = {"official": oracle.ctl_official, "paper": oracle.ctl_paper, "all": oracle.ctl_all}
every_variant = pytest.mark.parametrize("variant", SLOW)


def batch(counts: list[int], seed: int, dim: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of so many images in any order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(rng.permutation(30)[: len(counts)], counts))
    return torch.from_numpy(rng.normal(size=(len(labels), dim))), torch.from_numpy(labels)


def of_loops(variant, f, labels, margin, refs=None):
    """The oracle's value, and its gradients by f and by the references, through torch scalars."""

    def leaves(rows):
        return [[torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in r] for r in rows]

    def slopes(rows):
        return torch.tensor([[0.0 if v.grad is None else v.grad for v in row] for row in rows])

    points = leaves(f.tolist())
    others = None if refs is None else (leaves(refs[0].tolist()), refs[1].tolist())
    value = SLOW[variant](points, labels.tolist(), margin, others)
    if isinstance(value, torch.Tensor) and value.requires_grad:
        value.backward()
    value = value.item() if isinstance(value, torch.Tensor) else value
    return value, slopes(points), None if others is None else slopes(others[0])


def check(variant, f, labels, margin, refs=None):
    value, by_f, by_refs = of_loops(variant, f, labels, margin, refs)
    leaf = f.clone().requires_grad_()
    given_refs = () if refs is None else (refs[0].clone().requires_grad_(), refs[1])
    got = CentroidTripletLoss(variant, margin)(leaf, labels, *given_refs)
    got.backward()
    assert got.item() == pytest.approx(value, rel=1e-9, abs=1e-9)
    torch.testing.assert_close(leaf.grad, by_f.double(), rtol=1e-6, atol=1e-7)
    if given_refs:
        torch.testing.assert_close(given_refs[0].grad, by_refs.double(), rtol=1e-6, atol=1e-7)


counts = st.lists(st.integers(1, 4), min_size=1, max_size=4)
seeds = st.integers(0, 2**32 - 1)


@every_variant
@settings(max_examples=20, deadline=None)
@given(counts=counts, seed=seeds, margin=st.sampled_from([0.3, 50.0]))
def test_value_and_gradient_equal_the_loops(variant, counts, seed, margin):
    check(variant, *batch(counts, seed), margin)


@every_variant
@settings(max_examples=20, deadline=None)
@given(counts=counts, seed=seeds, refs=counts, other=seeds, margin=st.sampled_from([0.3, 50.0]))
def test_with_references_too(variant, counts, seed, refs, other, margin):
    """Some ids are among the references, some are not, some are there alone."""
    f, labels = batch(counts, seed)
    rng = np.random.default_rng(other)
    names = rng.permutation(np.r_[np.unique(labels.numpy()), 77, 78])[: len(refs)]
    ref_labels = torch.from_numpy(rng.permutation(np.repeat(names, refs[: len(names)])))
    ref_f = torch.from_numpy(rng.normal(size=(len(ref_labels), f.shape[1])))
    check(variant, f, labels, margin, (ref_f, ref_labels))


@pytest.mark.parametrize("cells", [1, 30, 1 << 22, None])
@pytest.mark.parametrize("left_out", [True, False])
def test_very_ragged(monkeypatch, cells, left_out):
    """Rounds of many sizes, in blocks of few and of many; the longest id is alone at its end.

    cells: of the way in torch; None: compiled.
    """
    monkeypatch.setattr(ctl_rounds, "COMPILED", 256 if cells is None else 0)
    cells = cells or 1
    monkeypatch.setattr(ctl_rounds, "CELLS", cells)
    monkeypatch.setattr(ctl_rounds, "BLOCK", cells)
    f, labels = batch([1, 2, 3, 9, 17, 2, 4, 4, 5, 1], 5)
    refs = None if left_out else batch([3, 1, 9, 2, 5, 1, 1, 6, 2, 1, 3, 3, 3], 6)
    fast = CentroidTripletLoss("official", 0.4)
    value = oracle.ctl_official(
        f.tolist(), labels.tolist(), 0.4, refs and (refs[0].tolist(), refs[1].tolist())
    )
    assert value > 0
    assert fast(f, labels, *(refs or ())).item() == pytest.approx(value, rel=1e-12)
    if left_out:
        assert torch.autograd.gradcheck(lambda x: fast(x, labels), f.requires_grad_())
    else:
        ref_f, ref_labels = refs
        inputs = (f.requires_grad_(), ref_f.requires_grad_())
        assert torch.autograd.gradcheck(lambda x, r: fast(x, labels, r, ref_labels), inputs)


@pytest.mark.parametrize("left_out", [True, False])
@pytest.mark.parametrize("margin", [0.4, 70.0])
@pytest.mark.parametrize(("kind", "close"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True), (False, False)])
def test_compiled_equals_torch(monkeypatch, left_out, margin, kind, close, wanted):
    """Both ways, with the gradients that are asked for; rows that don't lie side by side."""
    f, labels = batch([4, 4, 3, 9, 2, 1], 7, 600)
    ref_f, ref_labels = batch([3, 1, 6, 2, 5, 1, 2, 1, 1, 1, 1, 1], 8, 600)
    found = []
    for most in (0, 256):
        monkeypatch.setattr(ctl_rounds, "COMPILED", most)
        x = f.to(kind).T.contiguous().T.requires_grad_(wanted[0])
        r = ref_f.to(kind)[:, ::1].requires_grad_(wanted[1])
        loss = CentroidTripletLoss("official", margin)
        value = loss(x, labels) if left_out else loss(x, labels, r, ref_labels)
        assert value.dtype == kind and value.item() > 0
        if value.requires_grad:
            (3 * value).backward()
        found.append((value.item(), x.grad, r.grad))
    (value, *slopes), (again, *others) = found
    assert again == pytest.approx(value, rel=close)
    for one, two in zip(slopes, others, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert (one - two).norm() <= 5 * close * one.norm()


def test_points_in_one_place_have_no_slope(monkeypatch):
    """Distances of 0, of a query to its centroid and to other ids; and NaN shows, both ways."""
    f, labels = torch.ones(6, 3, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 2, 2])
    for most in (0, 256):
        monkeypatch.setattr(ctl_rounds, "COMPILED", most)
        leaf = f.clone().requires_grad_()
        loss = CentroidTripletLoss("official", 0.5)(leaf, labels)
        loss.backward()
        assert loss.item() == 0.5 and leaf.grad.abs().max() == 0
        bad = f.clone()
        bad[3, 1] = torch.nan
        assert CentroidTripletLoss("official", 0.5)(bad, labels).isnan()


def test_the_compiler_is_not_loaded_before_it_is_used():
    code = (
        "import sys, resight.losses, resight.losses.ctl, resight.losses.ctl_rounds;"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@every_variant
def test_no_id_in_common_is_zero_with_zero_gradient(variant):
    f, ref_f = torch.full((4, 2), torch.inf), torch.randn(3, 2)
    f.requires_grad_(), ref_f.requires_grad_()
    loss = CentroidTripletLoss(variant)(
        f, torch.tensor([0, 0, 1, 1]), ref_f, torch.tensor([2, 2, 3])
    )
    loss.backward()
    assert loss.item() == 0
    assert f.grad.abs().max() == 0 and ref_f.grad.abs().max() == 0
    empty = torch.zeros(0, 2)
    none = torch.zeros(0, dtype=torch.int64)
    assert CentroidTripletLoss(variant)(f, torch.tensor([0, 0, 1, 1]), empty, none).item() == 0
    assert CentroidTripletLoss(variant)(empty, none).item() == 0


def test_references_come_whole_or_not_at_all():
    f, labels = batch([2, 2], 0)
    with pytest.raises(ValueError, match="both ref_embeddings and ref_labels"):
        CentroidTripletLoss()(f, labels, f)
    with pytest.raises(ValueError, match="no ref_embeddings"):
        CenterLoss(30, 3)(f, labels, f, labels)


@every_variant
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_shows(variant, bad):
    f, labels = batch([2, 3, 2], 1)
    f[2, 1] = bad
    assert not torch.isfinite(CentroidTripletLoss(variant, 50.0)(f, labels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_variant
def test_half_precision_is_lifted(variant, dtype):
    f, labels = batch([2, 3, 4, 1], 2)
    half = f.to(dtype).requires_grad_()
    loss = CentroidTripletLoss(variant, 50.0)
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(half, labels)
    got.backward()
    same = half.detach().float().requires_grad_()
    wanted = loss(same, labels)
    wanted.backward()
    assert got.dtype == torch.float32 and got.item() == wanted.item()
    torch.testing.assert_close(half.grad, same.grad.to(dtype))


@every_variant
@pytest.mark.parametrize("far", [0.0, 100.0], ids=["centred", "far from 0"])
def test_single_precision(variant, far):
    """2048 dimensions: value and gradient to float32's digits, far from the origin too."""
    generator = torch.Generator().manual_seed(6)
    ids = torch.randn(8, 1, 2048, generator=generator, dtype=torch.float64)
    images = (ids + 0.2 * torch.randn(8, 4, 2048, generator=generator)).flatten(0, 1) + far
    labels = torch.arange(32) // 4
    loss = CentroidTripletLoss(variant, 60.0 if variant == "official" else 5000.0)
    x, y = images.float(), images.float().double()
    x.requires_grad_(), y.requires_grad_()
    single, double = loss(x, labels), loss(y, labels)
    single.backward()
    double.backward()
    tolerance = 1e-6 if far == 0 else 1e-5
    assert single.item() == pytest.approx(double.item(), rel=tolerance)
    error = (x.grad.double() - y.grad).norm() / y.grad.norm()
    assert error < tolerance * 10


@settings(max_examples=30, deadline=None)
@given(counts=counts, seed=seeds, far=st.sampled_from([0.0, 1e6]))
def test_hardest_pairs(counts, seed, far):
    """The pairs themselves, and the loss of them, against loops; far from the origin as well."""
    f, labels = batch(counts, seed)
    shifted = f + far
    same = labels[:, None] == labels[None, :]
    positive = same & ~torch.eye(len(labels), dtype=torch.bool)
    rows, far_rows, near_rows = hardest_pairs(shifted, shifted, positive, ~same)
    exact = (shifted[:, None] - shifted[None, :]).norm(dim=2)
    assert rows.tolist() == (positive.any(1) & (~same).any(1)).nonzero().flatten().tolist()
    for row, a, b in zip(rows.tolist(), far_rows.tolist(), near_rows.tolist(), strict=True):
        assert exact[row, a] == exact[row][positive[row]].max()
        assert exact[row, b] == exact[row][~same[row]].min()
    loss = hardest_triplets(f, f, positive, ~same, 0.5)
    assert loss.item() == pytest.approx(oracle.batch_hard(f.tolist(), labels.tolist(), 0.5))
