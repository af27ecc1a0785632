"""A step in chunks equals the plain step; what is not finite never reaches a weight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from stepping import LABELS, batch, gradients, story
from torch import nn

from command import TINY
from resight.data.sources import load_images
from resight.data.splits import training_parts
from resight.errors import UserError
from resight.train import prepare
from resight.train.recipes import settings_of
from resight.train.step import FeatureNetwork, NotFinite, Stepper, _release_unused, accelerator

LOSSES = [
    {"recipe": "smooth_ap"},
    {"recipe": "smooth_ap", "loss": "proxy_nca", "loss_lr": 10},
    {"recipe": "smooth_ap", "loss": "contrastive", "memory": {"size": 7}},
    {"recipe": "ctl", "freeze_bn": True},
]


@pytest.mark.parametrize("values", LOSSES, ids=lambda v: v.get("loss", v["recipe"]))
@pytest.mark.parametrize("chunk", [1, 3, 9])
def test_chunks_give_the_gradients_of_the_plain_step(values: dict, chunk: int) -> None:
    images, labels = batch()
    plain, losses = gradients(story(**values), images, labels)
    cached, again = gradients(story(**values, chunk=chunk), images, labels)
    assert again == pytest.approx(losses, rel=1e-5)
    assert plain.keys() == cached.keys() and len(plain) > 10
    for name, gradient in plain.items():
        scale = float(gradient.abs().max())
        assert torch.allclose(cached[name], gradient, rtol=1e-4, atol=1e-4 * scale + 1e-7), name


def test_chunks_meet_the_same_dropout_twice() -> None:
    """Were the masks drawn anew, the second pass would not fit the gradient of the first."""

    class Dropped(nn.Module):
        def __init__(self, pool: nn.Module):
            super().__init__()
            self.pool, self.seen = pool, []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = nn.functional.dropout(self.pool(x), 0.5, self.training)
            self.seen.append(out.detach().clone())
            return out

    made = story(recipe="smooth_ap", chunk=4)
    made.embedder.pool = dropped = Dropped(made.embedder.pool)
    images, labels = batch()
    torch.manual_seed(1)
    gradients(made, images, labels)
    first, second = dropped.seen[:3], dropped.seen[3:]
    assert [len(x) for x in first] == [4, 4, 2]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0][:2], first[2])


def test_chunks_add_to_the_running_statistics_once() -> None:
    made = story(recipe="ctl", chunk=5)
    norm = next(m for m in made.embedder.backbone.modules() if isinstance(m, nn.BatchNorm2d))
    inputs: list[torch.Tensor] = []
    norm.register_forward_hook(lambda _, given, __: inputs.append(given[0].detach()))
    before = norm.running_mean.clone()
    images, labels = batch()
    gradients(made, images, labels)
    expected = before
    for chunk in inputs[2:]:
        expected = 0.9 * expected + 0.1 * chunk.mean((0, 2, 3))
    assert len(inputs) == 4
    assert torch.allclose(norm.running_mean, expected, atol=1e-6)


def test_chunks_need_the_memory_of_a_chunk() -> None:
    """Bytes that the graph keeps at a time, counted as they are saved and let go."""

    def peak(chunk: int | None) -> int:
        held = most = 0

        class Kept:
            def __init__(self, tensor: torch.Tensor):
                nonlocal held, most
                self.tensor, self.bytes = tensor, tensor.numel() * tensor.element_size()
                held += self.bytes
                most = max(most, held)

            def __del__(self) -> None:
                nonlocal held
                held -= self.bytes

        made = story(recipe="smooth_ap", chunk=chunk)
        images, labels = batch()
        many = images.repeat(8, 1, 1, 1)
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            gradients(made, many, labels.repeat(8))
        return most

    assert peak(5) < peak(None) / 6


@pytest.mark.parametrize("loss", ["smooth_ap", "triplet"])
def test_what_is_not_finite_touches_no_weight_and_names_the_image(loss: str) -> None:
    made = story(recipe="smooth_ap", loss=loss)
    before = {k: v.clone() for k, v in made.state.state_dict().items()}
    images, labels = batch()
    images[6] = torch.nan
    stepper = Stepper(made, accelerator())
    with pytest.raises(NotFinite) as caught:
        stepper(images, labels, update=True)
    assert caught.value.parts and caught.value.rows.tolist() == [6]
    assert all(torch.equal(v, before[k]) for k, v in made.state.state_dict().items())


def test_a_batch_of_one_image_or_none_changes_nothing_that_matters() -> None:
    for count in (0, 1):
        made = story(recipe="smooth_ap")
        images, labels = batch()
        taken, losses = gradients(made, images[:count], labels[:count])
        assert losses == {}
        assert all(not gradient.any() for gradient in taken.values())


def test_labels_of_the_set_make_the_batches() -> None:
    made = story(recipe="smooth_ap", ids=3, images=2)
    rows = [row for drawn in made.batches(0) for row, _ in drawn]
    assert set(rows) == set(range(len(LABELS)))
    assert made.batches(0) == made.batches(0) != made.batches(1)


def test_parameters_that_no_feature_depends_on_are_released() -> None:
    """mobilenetv3 has a head of its own behind the map that we pool."""
    made = story(recipe="smooth_ap", backbone="mobilenetv3_small_050", pooling="average")
    _release_unused(FeatureNetwork(made.embedder), made.embedder)
    released = {n for n, p in made.embedder.named_parameters() if not p.requires_grad}
    assert released == {"backbone.conv_head.weight", "backbone.conv_head.bias"}
    gradients(made, *batch())
    assert all(p.grad is None or n not in released for n, p in made.embedder.named_parameters())


def test_an_object_in_two_super_classes_is_one_line(shapes: Path) -> None:
    images = load_images(shapes)
    table = images.table.with_columns(kind=pl.int_range(pl.len()) % 2)
    parts = training_parts(replace(images, table=table), val_share=0.1, seed=0)
    settings = settings_of({"super_class": "kind", "backbone": TINY, "size": (32, 32)}, "test")
    with pytest.raises(UserError, match=r"super_class=kind: .* objects have several, object 0"):
        prepare.build_story(prepare.with_rate(settings, print), parts, print)
    with pytest.raises(UserError, match=r"super_class=colour: .* no such column"):
        colour = settings.model_copy(update={"super_class": "colour", "lr": 1e-3})
        prepare.build_story(colour, parts, print)
