"""The losses that Smooth-AP and CTL are compared with, against loops written from their papers."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import comparators as oracle
from tests.oracles import losses as base

from resight.losses.arcface import ArcFaceLoss
from resight.losses.blackbox_ap import BlackboxAPLoss
from resight.losses.classifier import ClassifierLoss
from resight.losses.contrastive import ContrastiveLoss
from resight.losses.ctl import CentroidTripletLoss
from resight.losses.fastap import FastAPLoss
from resight.losses.memory import CrossBatchMemory
from resight.losses.pairs import unit
from resight.losses.proxy_nca import ProxyNCALoss
from resight.losses.smooth_ap import SmoothAPLoss
from resight.losses.triplet import TripletLoss

CLASSES = 6


@st.composite
def batches(draw):
    """Ragged classes in any order, and references or none: f, labels, ref, ref_labels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dimension = draw(st.integers(2, 5))

    def rows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        # Norms of 0.01 to 100: the losses under test here look at directions.
        f = rng.normal(size=(count, dimension)) * 10 ** rng.uniform(-2, 2, size=(count, 1))
        return torch.from_numpy(f), torch.from_numpy(rng.integers(0, CLASSES, count))

    f, labels = rows(draw(st.integers(1, 14)))
    if draw(st.booleans()):
        return (f, labels, *rows(draw(st.integers(1, 14))))
    return f, labels, None, None


def lists(batch) -> list[oracle.Pairs]:
    return oracle.pair_lists(*(None if part is None else part.tolist() for part in batch))


@settings(max_examples=60)
@given(batch=batches(), margin=st.sampled_from([-0.5, 0.0, 0.5]), pos=st.sampled_from([0.3, 1.0]))
def test_contrastive_equals_the_loops(batch, margin, pos):
    value = ContrastiveLoss(margin, pos)(*batch).item()
    assert value == pytest.approx(oracle.contrastive(lists(batch), margin, pos), abs=1e-12)


@settings(max_examples=80)
@given(
    batch=batches(),
    margin=st.sampled_from([0.1, 1.0]),
    fallback=st.sampled_from(["farthest", "nearest", "none"]),
)
def test_semihard_equals_the_loops(batch, margin, fallback):
    value = TripletLoss(margin, "semihard", fallback)(*batch).item()
    assert value == pytest.approx(oracle.semihard(lists(batch), margin, fallback), abs=1e-9)


@settings(max_examples=60)
@given(batch=batches(), margin=st.sampled_from([0.0, 0.5, 20.0]))
def test_hard_equals_the_loops(batch, margin):
    f, labels, ref, _ = batch
    value = TripletLoss(margin)(*batch).item()
    if ref is None:
        expected = base.batch_hard(f.tolist(), labels.tolist(), margin)
    else:
        parts = [part.tolist() for part in batch]
        expected = oracle.hard(*parts, margin)
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=60)
@given(batch=batches(), bins=st.sampled_from([1, 4, 10, 25]))
def test_fastap_equals_the_loops(batch, bins):
    value = FastAPLoss(bins)(*batch).item()
    assert value == pytest.approx(oracle.fastap(lists(batch), bins), abs=1e-10)


def test_fastap_nears_the_exact_ap_with_many_bins():
    rng = np.random.default_rng(0)
    f = torch.from_numpy(rng.normal(size=(40, 4)))
    labels = torch.from_numpy(rng.integers(0, 8, 40))
    exact = oracle.blackbox_ap(lists((f, labels, None, None)), margin=0.0)
    errors = [abs(FastAPLoss(bins)(f, labels).item() - exact) for bins in (10, 100, 5000)]
    assert errors[2] < 1e-2 < errors[0]


@settings(max_examples=60)
@given(batch=batches(), margin=st.sampled_from([0.02, 0.5]), strength=st.sampled_from([0.5, 4.0]))
def test_blackbox_ap_equals_the_loops(batch, margin, strength):
    """The value, and the slopes as the definition has them, carried on through the cosines."""
    f, labels, ref, ref_labels = batch
    f = f.clone().requires_grad_()
    ref = None if ref is None else ref.clone().requires_grad_()
    pairs = lists(batch)
    value = BlackboxAPLoss(strength, margin)(f, labels, ref, ref_labels)
    assert value.item() == pytest.approx(oracle.blackbox_ap(pairs, margin), abs=1e-12)

    value.backward()
    others = f if ref is None else ref
    similarity = torch.nn.functional.normalize(f) @ torch.nn.functional.normalize(others).T
    slopes = torch.zeros_like(similarity)
    for i, row in enumerate(oracle.blackbox_ap_slopes(pairs, margin, strength)):
        for j, slope in row.items():
            slopes[i, j] = slope
    leaves = [f] if ref is None else [f, ref]
    expected = torch.autograd.grad(similarity, leaves, slopes)
    for leaf, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, gradient, rtol=1e-9, atol=1e-12)


def test_blackbox_ap_is_worked_by_hand():
    """Ranking: negative, positive, negative, positive. AP = (1/2 + 2/4) / 2."""
    angles = torch.tensor([0.1, 0.3, 0.5, 0.7], dtype=torch.float64)
    ref = torch.stack([angles.cos(), angles.sin()], 1)
    f = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    labels, ref_labels = torch.tensor([1]), torch.tensor([0, 1, 0, 1])
    assert BlackboxAPLoss(margin=0.0)(f, labels, ref, ref_labels).item() == pytest.approx(0.5)
    # Half the margin each way and the first positive falls behind the second negative.
    value = BlackboxAPLoss(margin=0.1)(f, labels, ref, ref_labels).item()
    assert value == pytest.approx(1 - (1 / 3 + 2 / 4) / 2)


def test_blackbox_ap_scales_its_gradient_with_the_loss():
    """A loss scaler multiplies the loss by 65536: what is learned must not depend on it."""
    rng = np.random.default_rng(1)
    f = torch.from_numpy(rng.normal(size=(20, 4))).requires_grad_()
    labels = torch.from_numpy(rng.integers(0, 4, 20))
    loss = BlackboxAPLoss()
    (plain,) = torch.autograd.grad(loss(f, labels), f)
    (scaled,) = torch.autograd.grad(65536 * loss(f, labels), f)
    assert plain.abs().max() > 0
    torch.testing.assert_close(scaled, 65536 * plain)


def test_steps_along_the_gradient_of_blackbox_ap_raise_the_ap():
    rng = np.random.default_rng(2)
    f = torch.from_numpy(rng.normal(size=(24, 8))).requires_grad_()
    labels = torch.arange(24) % 6
    loss = BlackboxAPLoss()
    before = loss(f, labels).item()
    for _ in range(60):
        (gradient,) = torch.autograd.grad(loss(f, labels), f)
        f = (f - 10 * gradient).detach().requires_grad_()
    assert loss(f, labels).item() < 0.3 * before


@settings(max_examples=50)
@given(batch=batches(), scale=st.sampled_from([1.0, 9.0]), include=st.booleans())
def test_proxy_nca_equals_the_loops(batch, scale, include):
    f, labels, _, _ = batch
    loss = ProxyNCALoss(CLASSES, f.shape[1], scale=scale, include_positive=include).double()
    expected = oracle.proxy_nca(f.tolist(), labels.tolist(), loss.proxies.tolist(), scale, include)
    assert loss(f, labels).item() == pytest.approx(expected, abs=1e-9)


@settings(max_examples=50)
@given(batch=batches(), margin=st.sampled_from([0.0, 0.5, 1.2]), scale=st.sampled_from([1.0, 64.0]))
def test_arcface_equals_the_loops(batch, margin, scale):
    f, labels, _, _ = batch
    loss = ArcFaceLoss(CLASSES, f.shape[1], scale=scale, margin=margin).double()
    expected = oracle.arcface(f.tolist(), labels.tolist(), loss.weight.tolist(), scale, margin)
    assert loss(f, labels).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_arcface_rises_with_the_angle_all_the_way():
    loss = ArcFaceLoss(2, 2, scale=4.0).double()
    loss.weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    angles = torch.linspace(0, torch.pi, 50, dtype=torch.float64)
    f = torch.stack([angles.cos(), angles.sin()], 1)
    values = torch.stack([loss(row[None], torch.tensor([0])) for row in f])
    assert (values.diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_arcface_at_and_opposite_its_vector(dtype, sign):
    """Where an arc cosine has no slope."""
    loss = ArcFaceLoss(3, 8, scale=1.0).to(dtype)
    loss.weight.data[0] = torch.eye(8)[0]  # the cosine is 1 to the last bit
    f = (sign * loss.weight.detach()[:1]).clone().requires_grad_()
    loss(f, torch.tensor([0])).backward()
    for gradient in (f.grad, loss.weight.grad):
        assert gradient is not None and torch.isfinite(gradient).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classifier_equals_the_loops(smoothing):
    rng = np.random.default_rng(3)
    f = torch.from_numpy(rng.normal(size=(7, 4)))
    labels = torch.from_numpy(rng.integers(0, 5, 7))
    loss = ClassifierLoss(5, 4, smoothing).double()
    assert loss.weight.shape == (5, 4) and loss.weight.std().item() < 0.003
    logits = (f @ loss.weight.T).tolist()
    expected = base.cross_entropy(logits, labels.tolist(), smoothing)
    assert loss(f, labels).item() == pytest.approx(expected, rel=1e-12)


def test_semihard_negatives_are_strictly_farther():
    """One negative as far as the positive (2), one at 4: margin 5 leaves 2 - 4 + 5."""
    anchor, label = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    ref, ref_labels = torch.tensor([[0.0, 1.0], [0, -1], [-1, 0]]), torch.tensor([0, 1, 1])
    value = TripletLoss(5.0, "semihard")(anchor, label, ref, ref_labels)
    assert value.item() == pytest.approx(3.0)
    # Without the one at 4 there is none; the one at 2 is what any fallback can take.
    for fallback, expected in (("farthest", 5.0), ("nearest", 5.0), ("none", 0.0)):
        loss = TripletLoss(5.0, "semihard", fallback)
        assert loss(anchor, label, ref[:2], ref_labels[:2]).item() == pytest.approx(expected)


def test_default_margins():
    assert TripletLoss().margin == 0.5
    assert TripletLoss(mining="semihard").margin == 0.1
    assert TripletLoss(0.0, "semihard").margin == 0.0
    assert ContrastiveLoss().margin == 0.5
    assert BlackboxAPLoss().interpolation == 4 and BlackboxAPLoss().margin == 0.02
    assert FastAPLoss().bins == 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TripletLoss(mining="easy"), "none of hard, semihard"),
        (lambda: TripletLoss(mining="semihard", fallback="all"), "none of farthest"),
        (lambda: FastAPLoss(0), "at least 1"),
        (lambda: BlackboxAPLoss(0.0), "above 0"),
        (lambda: CrossBatchMemory(ContrastiveLoss(), 0, 4), "at least 1"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_length_at_any_scale(dtype):
    """Squares of 1e30 leave float32: direction and slope are those of the same row at scale 1."""
    row = torch.tensor([[3.0, -4.0, 12.0]], dtype=dtype)
    weight = torch.tensor([[1.0, 2.0, -1.0]], dtype=dtype)
    plain = row.clone().requires_grad_()
    (wanted,) = torch.autograd.grad((unit(plain) * weight).sum(), plain)
    for scale in (1e-10, 1e-3, 1e10, 1e30):
        scaled = (row * scale).requires_grad_()
        value = unit(scaled)
        torch.testing.assert_close(value, row / 13)
        (gradient,) = torch.autograd.grad((value * weight).sum(), scaled)
        torch.testing.assert_close(gradient * scale, wanted)
    one_place = torch.tensor([[2.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad((unit(one_place) * weight).sum(), one_place)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 1.0, -0.5]], dtype=dtype))
    nothing = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(unit(nothing).sum(), nothing)
    assert not unit(nothing).any() and not gradient.any()


class TestMemory:
    """CrossBatchMemory, against a plain list of what was seen."""

    @staticmethod
    def stream(seed: int, steps: int, dimension: int = 3):
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            count = int(rng.integers(1, 9))
            f = torch.from_numpy(rng.normal(size=(count, dimension)))
            yield f, torch.from_numpy(rng.integers(0, 4, count))

    @pytest.mark.parametrize(
        "loss",
        [
            ContrastiveLoss(),
            TripletLoss(),
            FastAPLoss(),
            BlackboxAPLoss(),
            CentroidTripletLoss(),
            SmoothAPLoss(),
        ],
        ids=lambda loss: type(loss).__name__,
    )
    @settings(max_examples=15)
    @given(
        size=st.integers(1, 20),
        weight=st.sampled_from([0.5, 1.0]),
        start=st.integers(0, 3),
        seed=st.integers(0, 99),
    )
    def test_equals_a_list(self, loss, size, weight, start, seed):
        memory = CrossBatchMemory(loss, size, 3, weight, start).double()
        seen: list[torch.Tensor] = []
        seen_labels: list[torch.Tensor] = []
        for step, (f, labels) in enumerate(self.stream(seed, 8)):
            leaf, twin = f.clone().requires_grad_(), f.clone().requires_grad_()
            expected = loss(twin, labels)
            if seen and step >= start:
                held = torch.stack(seen[-size:]), torch.stack(seen_labels[-size:])
                expected = expected + weight * loss(twin, labels, *held)
            value = memory(leaf, labels)
            assert value.item() == pytest.approx(expected.item(), abs=1e-12)
            value.backward()  # the memory has changed by now
            expected.backward()
            torch.testing.assert_close(leaf.grad, twin.grad)
            seen += list(f)
            seen_labels += list(labels)
            entries, entry_labels = memory.entries()
            assert torch.equal(entries, torch.stack(seen[-size:]))
            assert torch.equal(entry_labels, torch.stack(seen_labels[-size:]))

    def test_only_training_fills_it(self):
        memory = CrossBatchMemory(ContrastiveLoss(), 10, 3).double()
        batch = next(self.stream(0, 1))
        memory.eval()(*batch)
        assert int(memory.count) == int(memory.calls) == 0
        memory.train()(*batch)
        assert int(memory.count) == len(batch[0])

    def test_a_saved_memory_goes_on_as_if_nothing_happened(self):
        batches = list(self.stream(4, 9))
        memory = CrossBatchMemory(ContrastiveLoss(), 11, 3, start=2).double()
        for batch in batches[:5]:
            memory(*batch)
        file = io.BytesIO()
        torch.save(memory.state_dict(), file)
        file.seek(0)
        again = CrossBatchMemory(ContrastiveLoss(), 11, 3, start=2).double()
        again.load_state_dict(torch.load(file))
        for batch in batches[5:]:
            assert again(*batch).item() == memory(*batch).item()
        for name, value in memory.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)

    def test_a_copy_is_on_its_own(self):
        memory = CrossBatchMemory(ContrastiveLoss(), 6, 3).double()
        first, second = self.stream(5, 2)
        memory(*first)
        copied = copy.deepcopy(memory)
        copied(*second)
        assert torch.equal(memory.entries()[0], first[0][-6:])

    def test_takes_half_precision_and_gives_no_gradient_to_what_it_holds(self):
        memory = CrossBatchMemory(ContrastiveLoss(), 8, 3)
        for f, labels in self.stream(6, 3):
            leaf = f.to(torch.bfloat16).requires_grad_()
            value = memory(leaf, labels)
            value.backward()
            assert value.dtype == torch.float32 and leaf.grad is not None
        assert memory.embeddings.dtype == torch.float32 and not memory.embeddings.requires_grad

    def test_a_loss_with_proxies_has_no_use_for_it(self):
        memory = CrossBatchMemory(ProxyNCALoss(4, 3), 8, 3).double()
        first, second = self.stream(7, 2)
        memory(*first)
        with pytest.raises(ValueError, match="ProxyNCALoss"):
            memory(*second)
