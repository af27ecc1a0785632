"""What every loss here promises: one interface, and the same manners at its edges.

Whether each computes what its paper says is tested elsewhere, against loops.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from resight.losses.arcface import ArcFaceLoss
from resight.losses.blackbox_ap import BlackboxAPLoss
from resight.losses.center import CenterLoss
from resight.losses.classifier import ClassifierLoss
from resight.losses.contrastive import ContrastiveLoss
from resight.losses.ctl import CentroidTripletLoss
from resight.losses.fastap import FastAPLoss
from resight.losses.memory import CrossBatchMemory
from resight.losses.proxy_nca import ProxyNCALoss
from resight.losses.smooth_ap import SmoothAPLoss
from resight.losses.triplet import TripletLoss

CLASSES, DIM = 7, 6
LABELS = [4, 0, 0, 2, 4, 0, 2, 6, 4, 4, 3]  # 3 and 6 have one image, 1 and 5 none
REF_LABELS = [0, 5, 2, 2, 4, 5, 0, 6, 2]  # nothing of class 3, and a class no query is of


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    refs: bool = True  # takes references
    classes: bool = False  # labels are 0..classes-1: it has vectors of the classes
    unit: bool = True  # looks at directions only
    ordered: bool = False  # the images of a class are told apart by their order
    smooth: bool = True  # its gradient is the derivative of its value
    # What a query weighs in the mean, from its numbers of positives and of other classes compared
    # with; None where the loss is no mean over queries.
    share: Callable[[int, int], int] | None = None


def _counts(positives: int, others: int) -> int:
    return int(positives > 0)


def _both(positives: int, others: int) -> int:
    return int(positives > 0 and others > 0)


def _memory(loss: nn.Module) -> nn.Module:
    """A memory that holds something, and stays as it is."""
    memory = CrossBatchMemory(loss, 30, DIM, weight=0.7)
    generator = torch.Generator().manual_seed(8)
    memory(torch.randn(20, DIM, generator=generator), torch.arange(20) % CLASSES)
    return memory.eval()


CASES = {
    "smooth_ap": Case(SmoothAPLoss, share=_counts),
    "smooth_ap, warm": Case(lambda: SmoothAPLoss(0.1), share=_counts),
    "smooth_ap, with query": Case(lambda: SmoothAPLoss(include_query=True), refs=False),
    "ctl official": Case(CentroidTripletLoss, unit=False, ordered=True),
    "ctl paper": Case(lambda: CentroidTripletLoss("paper"), unit=False, share=_both),
    "ctl all": Case(
        lambda: CentroidTripletLoss("all", 2.0),
        unit=False,
        share=lambda positives, others: others if positives else 0,
    ),
    "triplet hard": Case(TripletLoss, unit=False, share=_both),
    "triplet semihard": Case(
        lambda: TripletLoss(mining="semihard"),
        share=lambda positives, others: positives if others else 0,
    ),
    "triplet semihard, nearest": Case(lambda: TripletLoss(0.5, "semihard", "nearest")),
    "triplet semihard, none": Case(lambda: TripletLoss(0.5, "semihard", "none")),
    "contrastive": Case(lambda: ContrastiveLoss(0.2), share=lambda positives, others: 1),
    "contrastive, two margins": Case(lambda: ContrastiveLoss(-0.3, 0.6)),
    "fastap": Case(FastAPLoss, share=_counts),
    "blackbox_ap": Case(BlackboxAPLoss, smooth=False, share=_counts),
    "proxy_nca": Case(lambda: ProxyNCALoss(CLASSES, DIM), refs=False, classes=True),
    "proxy_nca ++": Case(
        lambda: ProxyNCALoss(CLASSES, DIM, scale=9.0, include_positive=True),
        refs=False,
        classes=True,
    ),
    "arcface": Case(lambda: ArcFaceLoss(CLASSES, DIM), refs=False, classes=True),
    "center": Case(lambda: CenterLoss(CLASSES, DIM), refs=False, classes=True, unit=False),
    "classifier": Case(lambda: ClassifierLoss(CLASSES, DIM), refs=False, classes=True, unit=False),
    "contrastive + memory": Case(lambda: _memory(ContrastiveLoss(0.2)), refs=False),
    "smooth_ap + memory": Case(lambda: _memory(SmoothAPLoss()), refs=False),
    "ctl + memory": Case(
        lambda: _memory(CentroidTripletLoss()), refs=False, unit=False, ordered=True
    ),
}
every = pytest.mark.parametrize("name", CASES)
with_refs = pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refs])


def make(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return CASES[name].make().to(dtype)


def rows(count: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, DIM, generator=generator, dtype=torch.float64).to(dtype)


def batch(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return rows(len(LABELS), seed, dtype), torch.tensor(LABELS)


def references(
    seed: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    return rows(len(REF_LABELS), seed, dtype), torch.tensor(REF_LABELS)


def forms(name: str, seed: int = 0) -> list[tuple[torch.Tensor, ...]]:
    """The batch alone and, where the loss takes them, with references."""
    alone = batch(seed)
    return [alone, (*alone, *references(seed + 50))] if CASES[name].refs else [alone]


def grads(loss: nn.Module, *inputs: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Value, and the gradients of embeddings, references and parameters."""
    inputs = tuple(x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs)
    leaves = [x for x in inputs if x.is_floating_point()] + list(loss.parameters())
    value = loss(*inputs)
    assert value.shape == ()
    return value.detach(), list(torch.autograd.grad(value, leaves, materialize_grads=True))


def finite(value: torch.Tensor, gradients: list[torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in (value, *gradients))


def shuffled(labels: torch.Tensor, seed: int, keep_order: bool) -> torch.Tensor:
    """A permutation of the batch; with keep_order, images of a class stay in their order."""
    rng = np.random.default_rng(seed)
    if not keep_order:
        return torch.from_numpy(rng.permutation(len(labels)))
    places = {int(k): iter((labels == k).nonzero().flatten().tolist()) for k in labels.unique()}
    return torch.tensor([next(places[k]) for k in rng.permutation(labels.numpy()).tolist()])


@every
@pytest.mark.parametrize("seed", range(3))
def test_any_order_gives_the_same(name, seed):
    """The value, and with it the gradients, which move with their images."""
    loss, ordered = make(name), CASES[name].ordered
    for inputs in forms(name, seed):
        orders = [shuffled(labels, seed, ordered) for labels in inputs[1::2]]
        moved = [x[orders[i // 2]] for i, x in enumerate(inputs)]
        value, gradients = grads(loss, *inputs)
        again, moved_gradients = grads(loss, *moved)
        torch.testing.assert_close(again, value, rtol=1e-9, atol=1e-11)
        for i, (a, b) in enumerate(zip(gradients, moved_gradients, strict=True)):
            wanted = a[orders[i]] if i < len(orders) else a
            torch.testing.assert_close(b, wanted, rtol=1e-7, atol=1e-9)
        assert any(bool(g.any()) for g in gradients)


@every
def test_names_of_classes_do_not_matter(name):
    """Below zero, or beyond 32 bits, in another order; for classes by number, of another type."""
    loss = make(name)
    names = torch.tensor([2**40, -3, 17, 0, 900, -(2**35), 5])
    for inputs in forms(name):
        value, _ = grads(loss, *inputs)
        if "memory" not in name and not CASES[name].classes:
            renamed = [names[x] if x.dtype == torch.int64 else x for x in inputs]
            assert grads(loss, *renamed)[0].item() == pytest.approx(value.item(), rel=1e-12)
        narrow = [x.int() if x.dtype == torch.int64 else x for x in inputs]
        assert grads(loss, *narrow)[0].item() == value.item()


@pytest.mark.parametrize(
    "labels",
    [[], [2], [1, 1, 1, 1], [0, 1, 2, 3], [0, 0, 1], [5, 0, 5, 5]],
    ids=["no image", "one image", "one class", "all alone", "one pair", "one alone"],
)
@pytest.mark.parametrize(
    ("name", "ref_labels"),
    [
        (name, ref_labels)
        for name, case in CASES.items()
        for ref_labels in (None, [], [1], [2, 2], [6, 6, 5])
        if ref_labels is None or case.refs
    ],
    ids=str,
)
def test_degenerate_batches(name, labels, ref_labels):
    """Nothing to compare is 0 with a gradient of 0; whatever there is, it is finite."""
    loss = make(name)
    inputs = [rows(len(labels), 3), torch.tensor(labels, dtype=torch.int64)]
    if ref_labels is not None:
        inputs += [rows(len(ref_labels), 4), torch.tensor(ref_labels, dtype=torch.int64)]
    value, gradients = grads(loss, *inputs)
    assert finite(value, gradients)
    pairs = len(labels) * (len(labels) - 1 if ref_labels is None else len(ref_labels))
    alone = not CASES[name].classes and "memory" not in name and "with query" not in name
    if len(labels) == 0 or (alone and pairs == 0):
        assert value.item() == 0
        assert not any(bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.share in (_counts, _both)])
def test_queries_without_a_positive_do_not_count(name):
    loss = make(name)
    embeddings, labels = batch()
    ref, ref_labels = references()
    value = loss(embeddings, labels, ref, ref_labels)
    useful = torch.isin(labels, ref_labels)
    assert 0 < useful.sum() < len(labels)
    same = loss(embeddings[useful], labels[useful], ref, ref_labels)
    assert value.item() == pytest.approx(same.item(), rel=1e-12)
    gradients = grads(loss, embeddings, labels, ref, ref_labels)[1]
    assert not gradients[0][~useful].any()


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.share])
def test_own_form_is_each_image_against_the_others(name):
    """The batch against itself equals, image by image, the form with references."""
    loss, share = make(name), CASES[name].share
    embeddings, labels = batch()
    total = weights = 0.0
    for i in range(len(labels)):
        others = torch.arange(len(labels)) != i
        own = labels[others] == labels[i]
        weight = share(int(own.sum()), len(labels[others][~own].unique()))
        value = loss(embeddings[i : i + 1], labels[i : i + 1], embeddings[others], labels[others])
        total += weight * value.item()
        weights += weight
    assert loss(embeddings, labels).item() == pytest.approx(total / weights, rel=1e-9)


@with_refs
def test_nothing_is_left_out_of_references(name):
    """The image itself, if it stands there, is a reference like any other: gradients reach it."""
    loss = make(name)
    embeddings, labels = batch()
    value, gradients = grads(loss, embeddings, labels, embeddings, labels)
    other, _ = grads(loss, embeddings, labels)
    if "contrastive" not in name:  # where a pair of equal embeddings adds 1 − 1
        assert value.item() != pytest.approx(other.item(), rel=1e-6)
    assert gradients[1].any()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.smooth])
def test_gradients_are_right(name):
    """Numerical against analytic, of embeddings, references and parameters alike."""
    loss = make(name)
    names, parameters = (
        zip(*loss.named_parameters(), strict=True) if CASES[name].classes else ((), ())
    )
    for inputs in forms(name, seed=2):
        labels = inputs[1::2]

        def call(*leaves: torch.Tensor, labels: tuple[torch.Tensor, ...] = labels) -> torch.Tensor:
            values = dict(zip(names, leaves[len(labels) :], strict=True))
            mixed = [x for pair in zip(leaves[: len(labels)], labels, strict=True) for x in pair]
            return torch.func.functional_call(loss, values, tuple(mixed))

        leaves = [x.detach().clone().requires_grad_() for x in (*inputs[::2], *parameters)]
        assert torch.autograd.gradcheck(call, leaves)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_lifted(name, dtype):
    """As in float32 on the rounded numbers; the gradient comes back in the input's type."""
    loss = make(name, torch.float32)
    for inputs in forms(name):
        half = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
        value, gradients = grads(loss, *half)
        full = [x.float() if x.is_floating_point() else x for x in half]
        wanted, wanted_gradients = grads(loss, *full)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
        for i, (a, b) in enumerate(zip(gradients, wanted_gradients, strict=True)):
            assert a.dtype == (dtype if i < len(inputs) // 2 else torch.float32)
            torch.testing.assert_close(a.float(), b.to(a.dtype).float(), rtol=0.02, atol=1e-5)


@every
def test_single_precision_is_close_to_double(name):
    for inputs in forms(name):
        exact, _ = grads(make(name), *inputs)
        single = [x.float() if x.is_floating_point() else x for x in inputs]
        value, gradients = grads(make(name, torch.float32), *single)
        assert exact.dtype == torch.float64 and value.dtype == torch.float32
        assert value.item() == pytest.approx(exact.item(), rel=1e-4)
        assert all(gradient.dtype == torch.float32 for gradient in gradients)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", ["zeros", "all alike", "within classes", "across", "one zero"])
def test_equal_embeddings_give_finite_gradients(name, dtype, case):
    loss = make(name, dtype)
    for inputs in forms(name):
        moved = []
        for x in inputs:
            x = x.to(dtype).clone() if x.is_floating_point() else x
            if x.is_floating_point():
                if case == "zeros":
                    x.zero_()
                elif case == "all alike":
                    x[:] = inputs[0][0]
                elif case == "within classes":
                    x[1] = x[2]
                    x[4] = x[0]
                elif case == "across":
                    x[3] = x[0]
                    x[5] = x[0]
                else:
                    x[4] = 0
            moved.append(x)
        value, gradients = grads(loss, *moved)
        assert finite(value, gradients)
        # The slope of a root or of a length at 0 has no bound; the loss must have one.
        assert all(gradient.abs().max() < 1e4 for gradient in gradients)


@every
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6], ids=str)
def test_tiny_and_huge_norms_are_finite(name, scale):
    """In float32; 1e-30 and its squares are about the least it holds."""
    loss = make(name, torch.float32)
    for inputs in forms(name):
        scaled = [(x * scale).float() if x.is_floating_point() else x for x in inputs]
        assert finite(*grads(loss, *scaled))


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.unit])
def test_length_does_not_matter(name):
    loss = make(name)
    for inputs in forms(name):
        lengths = [10 ** (3 * rows(len(x), 9)[:, :1]) for x in inputs]
        scaled = [
            x * y if x.is_floating_point() else x for x, y in zip(inputs, lengths, strict=True)
        ]
        value, gradients = grads(loss, *inputs)
        again, scaled_gradients = grads(loss, *scaled)
        assert again.item() == pytest.approx(value.item(), rel=1e-8, abs=1e-12)
        for i, scale in enumerate(lengths[::2]):
            torch.testing.assert_close(
                scaled_gradients[i] * scale, gradients[i], rtol=1e-6, atol=1e-9
            )


@every
@pytest.mark.parametrize("row", [4, 7], ids=["one of five", "alone"])
def test_a_number_that_is_not_finite_shows_in_the_value(name, row):
    """No exception, and no finite number that hides it: training stops on what it sees.

    A far negative that is never the nearest may go unseen, but then it has no gradient either.
    """
    loss = make(name, torch.float32)
    for inputs in forms(name):
        for bad in (torch.nan, torch.inf):
            spoilt = [x.float() if x.is_floating_point() else x for x in inputs]
            spoilt[0] = spoilt[0].clone()
            spoilt[0][row, 2] = bad
            value, gradients = grads(loss, *spoilt)
            unseen = row == 7 and not CASES[name].unit and not CASES[name].classes
            assert not torch.isfinite(value) or (unseen and finite(value, gradients))


@every
def test_autocast_changes_nothing(name):
    """Similarities in bfloat16 have three digits: too few for distances between near images."""
    loss = make(name, torch.float32)
    for inputs in forms(name):
        single = [x.float() if x.is_floating_point() else x for x in inputs]
        plain, _ = grads(loss, *single)
        with torch.autocast("cpu", torch.bfloat16):
            value, _ = grads(loss, *single)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(plain.item(), rel=1e-6)


@every
def test_twice_is_the_same_to_the_last_bit_and_inputs_stay(name):
    loss = make(name, torch.float32)
    for inputs in forms(name):
        single = [x.float() if x.is_floating_point() else x for x in inputs]
        copies = [x.clone() for x in single]
        value, gradients = grads(loss, *single)
        again, same_gradients = grads(loss, *single)
        with torch.no_grad():
            assert torch.equal(loss(*single), value)
        assert torch.equal(value, again)
        assert all(map(torch.equal, gradients, same_gradients))
        assert all(map(torch.equal, single, copies))


@every
def test_strides_do_not_matter(name):
    loss = make(name)
    for inputs in forms(name):
        turned = [x.T.contiguous().T if x.is_floating_point() else x for x in inputs]
        assert not turned[0].is_contiguous()
        value, wanted = grads(loss, *turned)[0], grads(loss, *inputs)[0]
        assert value.item() == pytest.approx(wanted.item(), rel=1e-12)


@every
def test_state_goes_round(name):
    """Saved and loaded into a new one, which started from other numbers."""
    loss = make(name)
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    with torch.random.fork_rng():
        torch.manual_seed(12)
        other = CASES[name].make().double().train(loss.training)
    other.load_state_dict(torch.load(file))
    for inputs in forms(name):
        assert torch.equal(loss(*inputs), other(*inputs))


@every
def test_references_come_whole_or_not_at_all(name):
    loss = make(name)
    inputs, ref = batch(), references()
    if CASES[name].refs:
        with pytest.raises(ValueError, match="ref_"):
            loss(*inputs, ref[0])
        with pytest.raises(ValueError, match="ref_"):
            loss(*inputs, None, ref[1])
    else:
        with pytest.raises(ValueError, match="ref"):
            loss(*inputs, *ref)
