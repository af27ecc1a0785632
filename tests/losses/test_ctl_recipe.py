"""How the CTL recipe weighs its losses."""

from __future__ import annotations

import pytest
import torch
from tests.oracles import losses as oracle

from resight.train.recipes.ctl import CTLObjective, CTLSettings

LABELS = [0, 2, 0, 1, 2, 1, 0]
NONE = {"triplet_weight": 0.0, "ctl_weight": 0.0, "ce_weight": 0.0}


def parts(**weights: float):
    """An objective in float64, f, e and labels."""
    objective = CTLObjective(CTLSettings(backbone="test_resnet", **weights), 3, 6).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    f, e = (
        torch.randn(7, 6, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    return objective, f, e, torch.tensor(LABELS)


def test_the_centre_learns_at_weight_1_the_feature_at_5e_4():
    objective, f, e, labels = parts(**NONE)
    losses = objective(f, e, labels)
    losses["loss"].backward()
    centers = objective.center.centers
    value = oracle.center(f.tolist(), LABELS, centers.tolist())
    assert losses["loss"].item() == pytest.approx(5e-4 * value, rel=1e-9)
    assert losses["center"].item() == pytest.approx(value, rel=1e-9)

    plain = objective.center(f, labels)
    wanted_f, wanted_centers = torch.autograd.grad(plain, [f, centers])
    torch.testing.assert_close(centers.grad, wanted_centers)
    torch.testing.assert_close(f.grad, 5e-4 * wanted_f)
    assert e.grad is not None and e.grad.abs().max() == 0


def test_the_loss_is_the_weighted_sum_of_its_parts():
    """Triplet, CTL and centre see f, before the neck; the classifier sees e, after it."""
    objective, f, e, labels = parts()
    losses = objective(f, e, labels)
    rows, centers = f.tolist(), objective.center.centers.tolist()
    logits = (e @ objective.classifier.weight.T).tolist()
    expected = {
        "triplet": oracle.batch_hard(rows, LABELS, 0.5),
        "ctl": oracle.ctl_official(rows, LABELS, 0.5),
        "ce": oracle.cross_entropy(logits, LABELS, 0.1),
        "center": oracle.center(rows, LABELS, centers),
    }
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-9), name
    total = expected["triplet"] + expected["ctl"] + expected["ce"] + 5e-4 * expected["center"]
    assert losses["loss"].item() == pytest.approx(total, rel=1e-9)


def test_the_centres_have_an_optimiser_of_their_own():
    adam, sgd = CTLObjective(CTLSettings(lr=1e-3), 3, 6).optimizers([])
    assert [len(o.param_groups[0]["params"]) for o in (adam, sgd)] == [1, 1]
    assert sgd.param_groups[0]["lr"] == 0.5 and adam.param_groups[0]["lr"] == 1e-3
    assert isinstance(adam, torch.optim.Adam) and isinstance(sgd, torch.optim.SGD)
