"""Smooth-AP and its hand-written gradient, against loops and against autograd."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import smooth_ap as oracle

from resight.losses import smooth_ap as module
from resight.losses import smooth_ap_rows
from resight.losses.smooth_ap import SmoothAPLoss, smooth_ap

FORMS = ["paper", "released", "references"]
every_form = pytest.mark.parametrize("form", FORMS)


def rows(rng: np.random.Generator, counts: list[int], names: np.ndarray, width: int):
    labels = rng.permutation(np.repeat(names[: len(counts)], counts))
    lengths = rng.uniform(0.1, 10, (len(labels), 1))
    return torch.from_numpy(rng.normal(size=(len(labels), width)) * lengths), torch.from_numpy(
        labels
    )


@st.composite
def batches(draw):
    """Ragged classes in any order, two sets of them whose classes overlap in part."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width, names = draw(st.integers(1, 5)), rng.permutation(50) - 10
    sizes = st.lists(st.integers(1, 6), min_size=1, max_size=6)
    first = rows(rng, draw(sizes), names, width)
    return (*first, *rows(rng, draw(sizes), names[draw(st.integers(0, 2)) :], width))


def arguments(form: str, batch: tuple) -> tuple[tuple, bool]:
    return (batch if form == "references" else batch[:2]), form == "released"


def value_and_grads(loss, batch: tuple) -> list[torch.Tensor]:
    """The loss, then its gradient by the embeddings and, if there are any, by the references."""
    given = [x.clone().requires_grad_() if i % 2 == 0 else x for i, x in enumerate(batch)]
    value = loss(*given)
    return [value.detach(), *torch.autograd.grad(value, given[::2])]


def example(form: str, counts=(5, 1, 3, 3, 2, 9, 1), seed: int = 0, width: int = 8) -> tuple:
    rng = np.random.default_rng(seed)
    names = np.arange(len(counts))
    both = *rows(rng, list(counts), names, width), *rows(rng, list(counts), names + 1, width)
    return arguments(form, both)[0]


def loss_of(form: str, temperature: float = 0.05) -> SmoothAPLoss:
    return SmoothAPLoss(temperature, include_query=form == "released")


@every_form
@settings(max_examples=60)
@given(batch=batches(), temperature=st.sampled_from([0.01, 0.1, 1.0]))
def test_equals_the_loops(form, batch, temperature):
    batch, include = arguments(form, batch)
    expected = oracle.smooth_ap(
        oracle.ranked(*(x.tolist() for x in batch), include_query=include), temperature
    )
    found = smooth_ap(*batch, temperature=temperature, include_query=include)
    assert found[~found.isnan()].tolist() == pytest.approx(expected, abs=1e-9)
    loss = SmoothAPLoss(temperature, include)(*batch).item()
    assert loss == pytest.approx(1 - np.mean(expected) if expected else 0.0, abs=1e-9)


@every_form
@settings(max_examples=60)
@given(batch=batches(), temperature=st.sampled_from([0.01, 0.1, 1.0]))
def test_gradient_equals_autograd(form, batch, temperature):
    batch, include = arguments(form, batch)
    if not oracle.ranked(*(x.tolist() for x in batch)):
        return
    found = value_and_grads(SmoothAPLoss(temperature, include), batch)
    expected = value_and_grads(
        lambda *b: oracle.dense(*b, temperature=temperature, include_query=include), batch
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@every_form
def test_gradcheck(form):
    batch = example(form, (3, 1, 2, 4), width=3)
    given = [x.requires_grad_() if i % 2 == 0 else x for i, x in enumerate(batch)]
    assert torch.autograd.gradcheck(loss_of(form, 0.2), given)


@every_form
def test_small_temperature_gives_the_true_ap(form):
    batch = example(form, (5, 1, 3, 3, 2, 9, 1, 20))
    lists = oracle.ranked(*(x.tolist() for x in batch), include_query=form == "released")
    expected = 1 - np.mean(oracle.exact_ap(lists))
    assert 0.2 < expected < 0.95
    assert loss_of(form, 1e-9)(*batch).item() == pytest.approx(expected, abs=1e-9)


@every_form
@pytest.mark.parametrize("tile", [1, 3, 16, 1000])
@pytest.mark.parametrize("work", [1, 100, 10**6])
def test_tiles_change_nothing(form, tile, work, monkeypatch):
    batch = example(form)
    expected = value_and_grads(loss_of(form), batch)
    monkeypatch.setattr(module, "_tile_rows", lambda *_: tile)
    monkeypatch.setattr(smooth_ap_rows, "_work", lambda *_: work)
    for one, other in zip(value_and_grads(loss_of(form), batch), expected, strict=True):
        torch.testing.assert_close(one, other)


@every_form
def test_order_of_rows_and_names_of_classes_change_nothing(form):
    batch = example(form)
    orders = [torch.from_numpy(np.random.default_rng(i).permutation(24)) for i in range(2)]
    moved = [x[orders[i // 2]] for i, x in enumerate(batch)]
    moved[1::2] = [-7 * labels + 3 for labels in moved[1::2]]
    value, *grads = value_and_grads(loss_of(form), batch)
    other, *others = value_and_grads(loss_of(form), tuple(moved))
    torch.testing.assert_close(other, value)
    for grad, again, order in zip(grads, others, orders, strict=False):
        torch.testing.assert_close(again, grad[order])


@every_form
def test_length_of_embeddings_changes_nothing(form):
    batch = example(form)
    longer = tuple(x * 1000 if i % 2 == 0 else x for i, x in enumerate(batch))
    torch.testing.assert_close(loss_of(form)(*longer), loss_of(form)(*batch))


@every_form
def test_float32_is_near_float64(form):
    batch = example(form, (4,) * 40, width=64)
    short = tuple(x.float() if i % 2 == 0 else x for i, x in enumerate(batch))
    exact = value_and_grads(loss_of(form, 0.01), batch)
    for one, other in zip(value_and_grads(loss_of(form, 0.01), short), exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() < 1e-4 * other.abs().max()


@every_form
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_lifted(form, dtype):
    """Only the embeddings and the finished gradient are rounded, also inside autocast."""
    batch = tuple(x.to(dtype) if i % 2 == 0 else x for i, x in enumerate(example(form)))
    lifted = tuple(x.float() if i % 2 == 0 else x for i, x in enumerate(batch))
    expected = value_and_grads(loss_of(form), lifted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, *grads = value_and_grads(loss_of(form), batch)
    assert value.dtype == torch.float32 and value == expected[0]
    for grad, exact in zip(grads, expected[1:], strict=True):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad, exact.to(dtype))


@every_form
def test_a_loss_scale_keeps_small_slopes(form):
    """Slopes below what half precision holds come through once they are scaled up."""
    batch = example(form)
    half = [(x * 2000).half().requires_grad_() if i % 2 == 0 else x for i, x in enumerate(batch)]
    (loss_of(form)(*half) * 2.0**14).backward()
    exact = value_and_grads(loss_of(form), tuple(x.detach().double() for x in half))
    torch.testing.assert_close(half[0].grad.double(), exact[1] * 2.0**14, rtol=1e-3, atol=1e-6)


def test_references_alone_may_want_a_gradient():
    f, labels, ref, ref_labels = example("references")
    expected = value_and_grads(loss_of("references"), (f, labels, ref, ref_labels))
    ref.requires_grad_()
    loss_of("references")(f, labels, ref, ref_labels).backward()
    torch.testing.assert_close(ref.grad, expected[2])


@every_form
def test_without_gradient_no_slopes(form, monkeypatch):
    batch = example(form)
    expected = loss_of(form)(*(x.requires_grad_() if x.is_floating_point() else x for x in batch))
    monkeypatch.setattr(torch.Tensor, "addmm_", None)  # what gradients would need
    with torch.no_grad():
        found = loss_of(form)(*batch)
    assert not found.requires_grad and found == expected.detach()
    assert loss_of(form)(*(x.detach() for x in batch)) == expected.detach()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize(
    ("f", "labels", "expected"),
    [
        (torch.ones(6, 4), [0, 0, 1, 1, 1, 2], None),
        (torch.zeros(6, 4), [0, 0, 1, 1, 1, 2], None),
        (torch.eye(4), [3, 3, 3, 3], 0.0),
        (torch.eye(4), [0, 1, 2, 3], 0.0),
        (torch.full((4, 4), 6e4), [0, 1, 2, 3], 0.0),
        (torch.full((4, 4), torch.inf), [0, 1, 2, 3], 0.0),
        (torch.ones(1, 4), [5], 0.0),
        (torch.ones(0, 4), [], 0.0),
    ],
)
def test_degenerate_batches(f, labels, expected, include, dtype):
    f = f.to(dtype, copy=True).requires_grad_()
    loss = SmoothAPLoss(include_query=include)(f, torch.tensor(labels, dtype=torch.int64))
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss) and torch.isfinite(f.grad).all()
    if expected is not None:
        assert loss.item() == pytest.approx(expected, abs=1e-6)
        assert f.grad.abs().max() < 1e-6 if f.numel() else True


def test_references_without_a_positive():
    f, ref = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    loss = SmoothAPLoss()(f, torch.tensor([0, 1, 1]), ref, torch.tensor([5, 6]))
    loss.backward()
    assert loss == 0 and not f.grad.any() and not ref.grad.any()


def test_identical_embeddings_share_every_place():
    """All σ are 1/2: with p positives among n others each term is (1 + (p-1)/2) / (1 + (n-1)/2)."""
    f, labels = torch.ones(10, 3, dtype=torch.float64), torch.arange(10) // 5
    assert SmoothAPLoss()(f, labels).item() == pytest.approx(1 - (1 + 3 / 2) / (1 + 8 / 2))


def test_an_embedding_of_zeros_gets_no_gradient():
    f = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    f[2] = 0
    f.requires_grad_()
    SmoothAPLoss(0.1)(f, torch.tensor([0, 0, 0, 1, 1, 1])).backward()
    assert not f.grad[2].any() and f.grad[[0, 1, 3, 4, 5]].any(1).all()


def test_refusals():
    f, labels = torch.ones(2, 2), torch.tensor([0, 0])
    with pytest.raises(ValueError, match="temperature"):
        SmoothAPLoss(0.0)
    with pytest.raises(ValueError, match="include_query"):
        SmoothAPLoss(include_query=True)(f, labels, f, labels)
    with pytest.raises(ValueError, match="go together"):
        SmoothAPLoss()(f, labels, f)


KERNEL = """
import torch
from resight.losses import smooth_ap as module, smooth_ap_rows, smooth_ap_triton
from resight.losses.smooth_ap import SmoothAPLoss
def run(f, labels, ref, ref_labels, include):
    given = [x.clone().requires_grad_() for x in (f, ref) if x is not None]
    loss = SmoothAPLoss(0.1, include)
    value = loss(given[0], labels, *given[1:], *[ref_labels][: len(given) - 1])
    alone = loss(f, labels, ref, ref_labels)
    return [value.detach(), alone, *torch.autograd.grad(value, given)]
torch.manual_seed(0)
device = torch.device("{device}")
# 17 positives: more than the kernel takes at a time
labels = torch.tensor([0] * 18 + [1] * 3 + [2])
for dtype, near in [(torch.float64, 1e-10), (torch.float32, 1e-4)]:
    f, ref = (torch.randn(22, 6, dtype=dtype, device=device) for _ in "12")
    y, other = (labels[torch.randperm(22)].to(device) for _ in "12")
    for given in [(f, y, None, None, False), (f, y, None, None, True), (f, y, ref, other, False)]:
        found = []
        for fill in (smooth_ap_rows.rows, smooth_ap_triton.rows):
            module._filler = lambda device: fill
            found.append(run(*given))
        for one, two in zip(*found, strict=True):
            torch.testing.assert_close(one, two, rtol=near, atol=near)
        if dtype == torch.float32 and device.type == "cpu":
            break
assert smooth_ap_triton.works(device)
print("same")
"""


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_kernel_does_the_same(device):
    """On a CPU with Triton's interpreter."""
    pytest.importorskip("triton")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    done = subprocess.run(
        [sys.executable, "-c", KERNEL.format(device=device)],
        env=os.environ | ({"TRITON_INTERPRET": "1"} if device == "cpu" else {}),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "same\n", done.stderr


MEMORY = """
import resource, torch
from resight.losses.smooth_ap import SmoothAPLoss
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def step(batch, images):
    f = torch.randn(batch, 32, requires_grad=True)
    SmoothAPLoss()(f, torch.arange(batch) // images).backward()
step(256, 4)
before = peak()
step(4096, {images})
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize("images", [4, 32])
def test_memory(images):
    """4,096 images: a matrix of similarities is 64 MiB, one for each positive 192 MiB or 2 GiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY.format(images=images)], capture_output=True, text=True
    )
    assert int(done.stdout) < 60, done.stderr
