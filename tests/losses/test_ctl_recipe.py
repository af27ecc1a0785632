"""How the CTL recipe weighs its losses."""

from __future__ import annotations

import pytest
import torch
from tests.oracles import losses as oracle

from resight.models.embedder import Embedder
from resight.train.recipes.ctl import CTLModel, CTLSettings

LABELS = [0, 2, 0, 1, 2, 1, 0]
NONE = {"triplet_weight": 0.0, "ctl_weight": 0.0, "ce_weight": 0.0}


def parts(embedder: Embedder, **weights: float):
    """A model in float64, f, logits and labels."""
    model = CTLModel(embedder, 3, CTLSettings(backbone="test_resnet", **weights))  # type: ignore[arg-type]
    model.center.double()
    generator = torch.Generator().manual_seed(1)
    f = torch.randn(7, embedder.dim, generator=generator, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    return model, f, logits, torch.tensor(LABELS)


def test_the_centre_learns_at_weight_1_the_feature_at_5e_4(embedder):
    model, f, logits, labels = parts(embedder, **NONE)
    losses = model.losses(f, logits, labels)
    losses["loss"].backward()
    centers = model.center.centers
    value = oracle.center(f.tolist(), LABELS, centers.tolist())
    assert losses["loss"].item() == pytest.approx(5e-4 * value, rel=1e-9)
    assert losses["center"].item() == pytest.approx(value, rel=1e-9)

    plain = model.center(f, labels)
    wanted_f, wanted_centers = torch.autograd.grad(plain, [f, centers])
    torch.testing.assert_close(centers.grad, wanted_centers)
    torch.testing.assert_close(f.grad, 5e-4 * wanted_f)
    assert logits.grad is not None and logits.grad.abs().max() == 0


def test_the_loss_is_the_weighted_sum_of_its_parts(embedder):
    model, f, logits, labels = parts(embedder)
    losses = model.losses(f, logits, labels)
    rows, centers = f.tolist(), model.center.centers.tolist()
    expected = {
        "triplet": oracle.batch_hard(rows, LABELS, 0.5),
        "ctl": oracle.ctl_official(rows, LABELS, 0.5),
        "ce": oracle.cross_entropy(logits.tolist(), LABELS, 0.1),
        "center": oracle.center(rows, LABELS, centers),
    }
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-9), name
    total = expected["triplet"] + expected["ctl"] + expected["ce"] + 5e-4 * expected["center"]
    assert losses["loss"].item() == pytest.approx(total, rel=1e-9)


def test_metric_losses_work_before_the_neck_and_the_classifier_after(embedder):
    """Triplet, CTL and centre see f; cross-entropy sees the neck's output."""
    settings = CTLSettings(backbone="test_resnet")
    model = CTLModel(embedder, 3, settings).eval()
    images = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor(LABELS)
    with torch.no_grad():
        losses = model(images, labels)
        f, e = embedder(images)
        expected = model.losses(f, model.classifier(e), labels)
    assert not torch.allclose(f, e)
    for name in expected:
        torch.testing.assert_close(losses[name], expected[name])
