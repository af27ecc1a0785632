"""Pooling, the BN neck, and instance-batch normalisation, against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from resight.models.heads import BNNeck, classifier
from resight.models.ibn import IBN
from resight.models.pooling import AveragePool, GeM


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) + 0.1


@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, 6.5])
def test_gem_is_the_generalised_mean(p):
    x = maps(2, 5, 4, 3)
    got = GeM(p)(x).detach().numpy()
    for b in range(2):
        for c in range(5):
            cells = x[b, c].double().numpy().ravel()
            assert got[b, c] == pytest.approx(np.mean(cells**p) ** (1 / p), rel=1e-5)


def test_gem_runs_from_the_average_to_the_maximum():
    x = maps(3, 4, 5, 5)
    torch.testing.assert_close(GeM(1.0)(x), AveragePool()(x))
    torch.testing.assert_close(AveragePool()(x), x.mean((2, 3)))
    # (max^p / 25)^(1/p) <= GeM <= max
    top, got = x.amax((2, 3)), GeM(100.0)(x)
    assert (got <= top * (1 + 1e-6)).all() and (got >= top * 25 ** (-1 / 100) * (1 - 1e-6)).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("p", [1.0, 3.0, 100.0])
def test_gem_neither_overflows_nor_vanishes(scale, p):
    """Doubling the map doubles the result, whatever the power."""
    x = maps(2, 3, 4, 4)
    gem = GeM(p)
    torch.testing.assert_close(gem(x * scale), gem(x) * scale, rtol=1e-4, atol=0)
    x = (x * scale).half().requires_grad_()
    gem(x).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    assert gem.p.grad is not None and torch.isfinite(gem.p.grad)


def test_gem_gradients_are_right_for_the_map_and_for_p():
    gem = GeM(2.5)
    x = maps(1, 2, 3, 3).requires_grad_()
    formula = x.pow(gem.p).mean((2, 3)).pow(1 / gem.p)
    expected = torch.autograd.grad(formula.sum(), [x, gem.p])
    got = torch.autograd.grad(gem(x).sum(), [x, gem.p])
    for mine, true in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-4, atol=1e-6)


def test_gem_of_an_empty_map_is_finite():
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    value = GeM(3.0)(x)
    value.sum().backward()
    assert torch.isfinite(value).all() and x.grad is not None and torch.isfinite(x.grad).all()


def test_the_necks_bias_stays_0_while_its_weight_learns():
    neck = BNNeck(4)
    free = [p for p in neck.parameters() if p.requires_grad]
    assert [p is neck.weight for p in free] == [True]
    optimizer = torch.optim.SGD(free, lr=1.0)
    for _ in range(3):
        loss = (neck(torch.randn(8, 4)) - 3).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert neck.bias.abs().max() == 0 and neck.bias.grad is None
    assert (neck.weight != 1).all()


def test_the_classifier_has_no_bias_and_small_weights():
    layer = classifier(512, 300)
    assert layer.bias is None and layer.weight.shape == (300, 512)
    assert layer.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert abs(layer.weight.mean().item()) < 1e-5


@pytest.mark.parametrize("channels", [8, 7])
def test_ibn_is_half_instance_half_batch_norm(channels):
    norm, half = IBN(channels), channels // 2
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x = maps(4, channels, 5, 3) * 7
    got = norm(x)
    first = F.instance_norm(x[:, :half], weight=norm.IN.weight, bias=norm.IN.bias)
    rest = x[:, half:]
    last = F.batch_norm(rest, None, None, norm.BN.weight, norm.BN.bias, training=True)
    torch.testing.assert_close(got, torch.cat([first, last], 1))
    torch.testing.assert_close(norm.BN.running_mean, 0.1 * rest.mean((0, 2, 3)))

    norm.eval()  # the batch half uses its statistics now, the instance half has none
    last = F.batch_norm(rest, norm.BN.running_mean, norm.BN.running_var, norm.BN.weight)
    last = last + norm.BN.bias[:, None, None]
    torch.testing.assert_close(norm(x), torch.cat([first, last], 1))
    torch.testing.assert_close(norm(x)[:1], norm(x[:1]))
