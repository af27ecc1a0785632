"""InsCLR's losses against plain sums over pairs, differentiated by autograd in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.losses.contrastive import ContrastiveLoss
from resight.losses.mined import batch_contrastive, listed_contrastive, memory_contrastive

MARGIN = 0.4
NONE = torch.zeros(0, dtype=torch.int64)
Pair = tuple[int, int, int]


def rows(count: int, dim: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    # A common part, so that many pairs are above the margin and many below.
    return torch.randn(count, dim, generator=generator, dtype=torch.float64) + 0.5


def units(count: int, dim: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.nn.functional.normalize(rows(count, dim, seed))


def plain(
    embeddings: torch.Tensor,
    vectors: torch.Tensor,
    pairs: list[Pair],
    margin: float = MARGIN,
    pos_margin: float = 1.0,
) -> torch.Tensor:
    """1/B of the sum over pairs (image, vector, 1 or -1), from the whole matrix of similarities."""
    positive, negative = torch.zeros(2, len(embeddings), len(vectors), dtype=torch.float64)
    for i, j, sign in pairs:
        positive[i, j] += sign == 1
        negative[i, j] += sign == -1
    s = torch.nn.functional.normalize(embeddings) @ vectors.T
    pairwise = positive * (s < pos_margin) * (1 - s) + negative * (s > margin) * s
    return pairwise.sum() / len(embeddings)


def differentiated(value: torch.Tensor, leaf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    (gradient,) = torch.autograd.grad(3 * value, leaf)
    return value.detach(), gradient


def same(a: torch.Tensor, b: torch.Tensor, leaf: torch.Tensor, tolerance: float = 1e-10) -> None:
    for x, y in zip(differentiated(a, leaf), differentiated(b, leaf), strict=True):
        torch.testing.assert_close(x, y.to(x.dtype), rtol=tolerance, atol=tolerance)


def cut(vectors: torch.Tensor, places: list[int]) -> list[torch.Tensor]:
    return list(torch.tensor_split(vectors, sorted(places)))


drawn = st.integers(0, 2**20)


@settings(max_examples=60)
@given(drawn, st.integers(1, 7), st.integers(0, 25), st.integers(1, 30), st.data())
def test_memory_is_the_sum_over_pairs(seed, count, columns, block, data):
    e = rows(count, seed=seed).requires_grad_()
    vectors = units(columns, seed=seed + 1)
    every = [(i, j) for i in range(count) for j in range(columns)]
    out = data.draw(st.lists(st.sampled_from(every), max_size=40)) if every else []  # repeats too
    views = cut(vectors, data.draw(st.lists(st.integers(0, columns), max_size=2)))
    excluded = torch.tensor(out, dtype=torch.int64).reshape(-1, 2).T
    got = memory_contrastive(e, views, (excluded[0], excluded[1]), MARGIN, block)
    wanted = plain(e, vectors, [(i, j, -1) for i, j in every if (i, j) not in out])
    same(got, wanted, e)


@pytest.mark.parametrize("above", [1, 30, 900])
def test_memory_adds_few_and_many_alike(above: int) -> None:
    """Some blocks have none above the margin, some few, some most."""
    e, vectors = rows(9, 16).requires_grad_(), -units(300, 16)
    places = torch.randperm(300, generator=torch.Generator().manual_seed(above))[:above]
    vectors[places] *= -1
    excluded = torch.tensor([0, 0, 8]), places[:1].repeat(3)
    got = memory_contrastive(e, [vectors], excluded, MARGIN, 40)
    out = {(i, int(places[0])) for i in (0, 8)}
    pairs = [(i, j, -1) for i in range(9) for j in range(300) if (i, j) not in out]
    same(got, plain(e, vectors, pairs, MARGIN), e)


@settings(max_examples=60)
@given(drawn, st.integers(1, 7), st.integers(1, 25), st.integers(1, 30), st.data())
def test_lists_are_the_sum_over_pairs(seed, count, columns, block, data):
    e = rows(count, seed=seed).requires_grad_()
    vectors = units(columns, seed=seed + 1)
    one = st.tuples(
        st.integers(0, count - 1), st.integers(0, columns - 1), st.sampled_from([1, -1, 0])
    )
    pairs = data.draw(st.lists(one, max_size=60))
    image, index, sign = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 3).T
    kwargs = {"margin": 0.3, "pos_margin": 0.9, "block": block}
    wanted = plain(e, vectors, pairs, 0.3, 0.9)
    same(listed_contrastive(e, image, vectors, index, sign, **kwargs), wanted, e)
    again = plain(e, vectors, pairs, 0.3, 0.9)
    same(listed_contrastive(e, image, vectors[index], None, sign, **kwargs), again, e)
    both = [listed_contrastive(e, *one_sign(pairs, vectors, k), **kwargs) for k in (1, -1)]
    same(sum(both), plain(e, vectors, pairs, 0.3, 0.9), e)


def one_sign(pairs: list[Pair], vectors: torch.Tensor, sign: int) -> tuple:
    some = torch.tensor([(i, j) for i, j, k in pairs if k == sign], dtype=torch.int64)
    image, index = some.reshape(-1, 2).T
    return image, vectors, index, sign


@settings(max_examples=60)
@given(drawn, st.integers(1, 9))
def test_batch_is_the_sum_over_pairs(seed, count):
    e = rows(count, seed=seed).requires_grad_()
    relation = torch.randint(-1, 2, (count, count), generator=torch.Generator().manual_seed(seed))
    got = batch_contrastive(e, relation.to(torch.int8), MARGIN, 0.95)
    u = torch.nn.functional.normalize(e)
    s = u @ u.T
    wanted = torch.where((relation == 1) & (s < 0.95), 1 - s, 0)
    wanted = wanted + torch.where((relation == -1) & (s > MARGIN), s, 0)
    same(got, wanted.sum() / count, e)


def test_batch_is_the_house_loss_where_labels_say_it():
    e = rows(9).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 3])
    relation = torch.where(labels[:, None] == labels, 1, -1).fill_diagonal_(0).to(torch.int8)
    same(batch_contrastive(e, relation), ContrastiveLoss(MARGIN)(e, labels), e)


def everything(e: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """All three with some pairs of every kind."""
    image, index = torch.tensor([0, 1, 1, 2, 3, 0]), torch.tensor([1, 1, 2, 3, 0, 0])
    sign = torch.tensor([1, -1, 1, -1, -1, 1])
    relation = torch.tensor([[0, 1, -1, -1], [1, 0, 0, -1], [-1, 0, 0, 1], [-1, -1, 1, 0]])
    return (
        batch_contrastive(e, relation)
        + memory_contrastive(e, [vectors[:5], vectors[5:]], (image, index), MARGIN, 3)
        + listed_contrastive(e, image, vectors, index, sign, MARGIN, 1, 2)
    )


def test_gradcheck():
    vectors = units(8)
    assert torch.autograd.gradcheck(lambda e: everything(e, vectors), rows(4).requires_grad_())


@pytest.mark.parametrize("dense", [False, True], ids=["few above", "many above"])
def test_float16_vectors_at_full_width(dense):
    """Both ways to add up gradients, in float32, against float64 on the same numbers."""
    generator = torch.Generator().manual_seed(2)
    shift = 1.0 if dense else 0.0
    e = (torch.randn(8, 256, generator=generator) + shift).requires_grad_()
    vectors = torch.randn(3000, 256, generator=generator) + shift
    vectors[::50] = 2 * e.detach()[torch.arange(60) % 8] + vectors[::50]
    vectors = torch.nn.functional.normalize(vectors).half()
    at = torch.arange(0, 3000, 7)
    excluded = (at % 8, at)
    (value, gradient) = differentiated(memory_contrastive(e, [vectors], excluded), e)
    wide = e.detach().double().requires_grad_()
    s = torch.nn.functional.normalize(wide) @ vectors.double().T
    # Nothing stands within a rounding of the margin, so both count the same pairs.
    assert (s - MARGIN).abs().min() > 1e-6
    near = s > MARGIN
    near[excluded] = False
    assert near.sum() > 40 and (8 * near.sum() > near.numel()) == dense
    wanted, wanted_gradient = differentiated((s * near).sum() / 8, wide)
    assert value.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=0)
    scale = float(wanted_gradient.abs().max())
    torch.testing.assert_close(gradient.double(), wanted_gradient, rtol=0, atol=3e-6 * scale)


def test_order_of_images_columns_and_pairs_does_not_matter():
    e, vectors = rows(6), units(20)
    generator = torch.Generator().manual_seed(4)
    image, index = torch.randint(6, (30,), generator=generator), torch.arange(30) % 20
    sign = torch.arange(30) % 3 - 1
    a, b, c = (torch.randperm(n, generator=generator) for n in (6, 20, 30))
    moved = (a.argsort()[image[c]], b.argsort()[index[c]])
    same_value = torch.testing.assert_close
    same_value(
        memory_contrastive(e, [vectors], (image, index)),
        memory_contrastive(e[a], [vectors[b]], moved),
    )
    same_value(
        listed_contrastive(e, image, vectors, index, sign),
        listed_contrastive(e[a], moved[0], vectors[b], moved[1], sign[c]),
    )


def test_nothing_to_compare_is_zero_with_a_gradient_of_zero():
    whatever = torch.full((3, 5), torch.nan)
    for e in (rows(3), whatever, rows(0)):
        leaf = e.clone().requires_grad_()
        values = [
            batch_contrastive(leaf, torch.zeros(len(e), len(e))),
            memory_contrastive(leaf, [], (NONE, NONE)),
            memory_contrastive(leaf, [units(0)], (NONE, NONE)),
            listed_contrastive(leaf, NONE, units(4), NONE, -1),
            listed_contrastive(leaf, NONE, units(0), None, NONE),
        ]
        for value in values:
            assert value.item() == 0
            (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True)
            assert gradient.shape == e.shape and not gradient.any()


def test_empty_slots_change_nothing():
    e, vectors = rows(4).requires_grad_(), units(10)
    vectors[3:6] = 0
    kept = torch.cat([vectors[:3], vectors[6:]])
    none = (NONE, NONE)
    same(memory_contrastive(e, [vectors], none), memory_contrastive(e, [kept], none), e)


def test_a_zero_row_gets_no_gradient():
    e = rows(4)
    e[2] = 0
    e.requires_grad_()
    value, gradient = differentiated(everything(e, units(8)), e)
    assert torch.isfinite(value) and torch.isfinite(gradient).all()
    assert not gradient[2].any() and gradient[[0, 1, 3]].any(1).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_shows(bad):
    e, vectors = rows(4), units(8)
    e[1, 2] = bad
    lists = torch.arange(4)
    assert memory_contrastive(e, [vectors], (NONE, NONE)).isnan()
    assert batch_contrastive(e, torch.ones(4, 4).fill_diagonal_(-1)).isnan()
    for sign in (1, -1):
        assert listed_contrastive(e, lists, vectors, lists, sign).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_precision(dtype):
    """Half embeddings are lifted, autocast changes nothing, lengths don't matter, inputs stay."""
    e, vectors = (rows(4) * 100).to(dtype), units(8).half()
    before = e.clone(), vectors.clone()
    lifted = e.float().requires_grad_()
    wanted, wanted_gradient = differentiated(everything(lifted, vectors), lifted)
    leaf = e.clone().requires_grad_()
    value, gradient = differentiated(everything(leaf, vectors), leaf)
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(gradient, wanted_gradient.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(everything(e, vectors), value)
    torch.testing.assert_close(everything(e.float() * 1e-6, vectors), value)
    assert torch.equal(e, before[0]) and torch.equal(vectors, before[1])


def test_what_is_written_between_forward_and_backward_changes_nothing():
    e, vectors = rows(4).requires_grad_(), units(8)
    wanted = torch.autograd.grad(everything(e, vectors), e)[0]
    value = everything(e, vectors)
    vectors.zero_()
    assert torch.equal(torch.autograd.grad(value, e)[0], wanted)


def test_mistakes_are_told():
    e, vectors, one = rows(4), units(8), torch.tensor([1])
    with pytest.raises(ValueError, match="relation"):
        batch_contrastive(e, torch.zeros(4, 3))
    for image, column in ((4, 0), (-1, 0), (0, 8), (0, -1)):
        pair = torch.tensor([image]), torch.tensor([column])
        with pytest.raises(ValueError, match=r"of [48]"):
            memory_contrastive(e, [vectors], pair)
        with pytest.raises(ValueError, match=r"of [48]"):
            listed_contrastive(e, pair[0], vectors, pair[1], one)
    with pytest.raises(ValueError, match="signs"):
        listed_contrastive(e, one, vectors[:1], None, torch.tensor([1, 1]))
