"""What is trained and what stays: frozen BatchNorm, head only, low-rank updates; their rates."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from resight.data.transforms import Preprocess
from resight.errors import UserError
from resight.models.embedder import Embedder, EmbedderConfig
from resight.models.rates import default_lr, family
from resight.models.tuning import freeze_batchnorm, parameter_groups, tune

SIZE = (64, 32)


def make(backbone: str = "test_resnet", **values: object) -> Embedder:
    torch.manual_seed(0)
    config = EmbedderConfig(backbone=backbone, preprocess=Preprocess(size=SIZE), **values)  # type: ignore[arg-type]
    model = Embedder(config)
    with torch.no_grad():  # some blocks start all but switched off: last norms of 0, tiny scales
        for parameter in model.backbone.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.4, 0.9)
    return model.train()


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def a_step(model: Embedder, seed: int = 0, lr: float = 0.05) -> None:
    """One step on both outputs, as the loop does it: train mode anew, only what wants gradients."""
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    f, e = model(images(seed))
    (f.square().mean() + (e - 1).square().mean()).backward()
    optimizer.step()
    model.zero_grad()


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def vectors(model: Embedder, seed: int = 5) -> torch.Tensor:
    return model.eval().embed_tensor(images(seed)).clone()


# --- BatchNorm with fixed statistics


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "resnet50_ibn_a"])
def test_frozen_batchnorm_keeps_its_statistics_and_learns_its_affine(backbone):
    model = make(backbone)
    freeze_batchnorm(model)
    before = snapshot(model)
    a_step(model)
    moved = changed(model, before)
    statistics = {k for k in before if "running_" in k or "num_batches" in k}
    assert {k for k in statistics if k.startswith("backbone.")}
    assert statistics & moved == {
        "neck.running_mean",
        "neck.running_var",
        "neck.num_batches_tracked",
    }
    assert {k for k, p in model.named_parameters() if p.requires_grad} <= moved
    assert model.backbone.training and model.neck.training

    plain = make(backbone)
    a_step(plain)
    assert {k for k in statistics if k.startswith("backbone.")} <= changed(plain, before)


def test_a_frozen_copy_stays_frozen_and_its_file_knows_nothing_of_it(tmp_path):
    model = make()
    freeze_batchnorm(model)
    for other in (copy.deepcopy(model), model.to(memory_format=torch.channels_last)):
        before = snapshot(other)
        a_step(other)
        assert "backbone.bn1.running_mean" not in changed(other, before)
    loaded = Embedder.load(model.save(tmp_path), "cpu")
    before = snapshot(loaded)
    a_step(loaded)
    assert "backbone.bn1.running_mean" in changed(loaded, before)


def test_frozen_batchnorm_makes_training_independent_of_the_batch():
    """Each image's feature is its own: the reason for freezing at all."""
    model = make()
    freeze_batchnorm(model)
    model.train()
    with torch.no_grad():
        together = model.features(images())
        alone = torch.cat([model.features(image[None]) for image in images()])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


# --- head only


@pytest.mark.parametrize(
    "values", [{"projection": 7}, {"pooling": "gem", "bn_neck": False}, {"bn_neck": True}]
)
def test_head_only_trains_what_comes_after_the_backbone(values):
    model = make(**values)
    tune(model, "head")
    before = snapshot(model)
    a_step(model)
    moved = changed(model, before)
    assert moved and not any(key.startswith("backbone.") for key in moved)
    assert {k for k, p in model.named_parameters() if p.requires_grad} <= moved
    assert not any(part.training for part in model.backbone.modules())
    graph = model.backbone.forward_features(images())  # type: ignore[operator]
    assert not graph.requires_grad  # no activations kept


def test_a_head_with_nothing_in_it_is_a_clear_error():
    with pytest.raises(UserError, match=r"nothing would be trained.*set projection"):
        tune(make(bn_neck=False), "head")
    with pytest.raises(UserError, match="nothing would be trained"):
        tune(make("test_vit", bn_neck=False), "head")


# --- low-rank updates

TRANSFORMERS = ["test_vit", "test_vit_relpos", "test_convnext", "test_mambaout"]


@pytest.mark.parametrize("backbone", TRANSFORMERS)
def test_low_rank_updates_start_as_the_same_function_and_train_alone(backbone):
    model = make(backbone, projection=5)
    expected = vectors(model)
    tune(model, "lora", rank=4)
    assert torch.equal(vectors(model), expected)
    updates = {k for k, _ in model.named_parameters() if k.endswith((".A", ".B"))}
    with torch.no_grad():  # A has no gradient while B is 0
        for name in updates:
            nn.init.normal_(model.get_parameter(name), std=0.1)
    assert not torch.allclose(vectors(model), expected, atol=1e-2)
    model.train()
    f, e = model(images())
    (f.square().mean() + (e - 1).square().mean()).backward()
    learning = {k for k, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert learning == updates | {"projection.weight", "projection.bias", "neck.weight"}
    before = snapshot(model)
    a_step(model)
    moved = changed(model, before)
    assert {k for k in moved if k.startswith("backbone.")} <= updates


def test_low_rank_updates_sit_on_attention_and_mlp_of_every_block():
    model = make("test_vit", projection=5)
    tune(model, "lora", rank=3)
    found = {
        name for name, part in model.named_modules() if parametrize.is_parametrized(part, "weight")
    }
    blocks = len(model.backbone.blocks)  # type: ignore[arg-type]
    parts = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert found == {f"backbone.blocks.{k}.{part}" for k in range(blocks) for part in parts}
    layer = model.backbone.get_submodule("blocks.0.mlp.fc1")
    update = layer.parametrizations.weight[0]  # type: ignore[union-attr]
    nn.init.normal_(update.B)
    difference = (layer.weight - layer.parametrizations.weight.original).detach()  # type: ignore[union-attr]
    torch.testing.assert_close(difference, 16 / 3 * update.B @ update.A)
    assert torch.linalg.matrix_rank(difference.double(), atol=1e-5) == 3


def test_an_embedder_saved_in_low_rank_training_is_an_ordinary_one(tmp_path):
    plain = make("test_vit", projection=5)
    model = copy.deepcopy(plain)
    tune(model, "lora", rank=4)
    assert model.fingerprint() == plain.fingerprint()  # nothing learned yet
    for k in range(3):
        a_step(model, k)
    loaded = Embedder.load(model.save(tmp_path), "cpu")
    torch.testing.assert_close(vectors(loaded), vectors(model), atol=1e-5, rtol=1e-5)
    assert list(loaded.state_dict()) == list(plain.state_dict())
    assert loaded.fingerprint() == model.fingerprint() != plain.fingerprint()
    assert not any(parametrize.is_parametrized(part) for part in loaded.modules())


def test_low_rank_training_resumes_exactly_from_a_state_dict():
    model = make("test_vit")
    tune(model, "lora", rank=4)
    a_step(model, 0)
    state = snapshot(model)
    a_step(model, 1)
    other = make("test_vit")
    with torch.no_grad():  # other values than the saved ones everywhere
        for parameter in other.parameters():
            parameter.add_(1)
    tune(other, "lora", rank=4)
    other.load_state_dict(state)
    a_step(other, 1)
    assert all(torch.equal(value, other.state_dict()[k]) for k, value in snapshot(model).items())


def test_copies_of_a_low_rank_model_learn_apart_and_alike():
    model = make("test_vit")
    tune(model, "lora", rank=4)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    before = snapshot(model)
    a_step(other)
    assert not changed(model, before)
    start = vectors(model)
    a_step(model)
    # The neck's statistics of a few images make more of rounding on some processors.
    torch.testing.assert_close(vectors(other), vectors(model), atol=2e-3, rtol=0)
    assert (vectors(model) - start).abs().max() > 2e-2


def test_where_low_rank_updates_have_no_place():
    for backbone in ("test_resnet", "test_efficientnet", "iresnet50"):
        with pytest.raises(UserError, match=f"backbone {backbone} has no blocks with Linear"):
            tune(make(backbone), "lora")
    with pytest.raises(UserError, match="wider than the rank 64"):
        tune(make("test_vit"), "lora", rank=64)
    model = make("test_vit")
    tune(model, "lora")
    with pytest.raises(ValueError, match="already"):
        tune(model, "lora")


def test_low_rank_in_a_transformer_with_batchnorm_keeps_its_statistics():
    model = make("levit_128s")
    tune(model, "lora")
    before = snapshot(model)
    a_step(model)
    assert not {k for k in changed(model, before) if "backbone" in k and "running" in k}


def test_tuning_all_changes_nothing():
    model = make(projection=5)
    before = {k: p.requires_grad for k, p in model.named_parameters()}
    tune(model, "all")
    assert {k: p.requires_grad for k, p in model.named_parameters()} == before
    assert not model.fixed


# --- groups and rates


def rates(model: Embedder, **values: float) -> dict[str, tuple[float, float]]:
    groups = parameter_groups(model, **{"lr": 0.5, "head_lr_factor": 4, "weight_decay": 0.25})
    torch.optim.AdamW(groups)
    names = {id(p): name for name, p in model.named_parameters()}
    flat = [(names[id(p)], (g["lr"], g["weight_decay"])) for g in groups for p in g["params"]]
    assert len(flat) == len(dict(flat))
    assert {k for k, _ in flat} == {k for k, p in model.named_parameters() if p.requires_grad}
    return dict(flat)


def test_a_convnets_groups():
    got = rates(make(pooling="gem", projection=5))
    assert got["backbone.bn1.weight"] == got["backbone.conv1.0.weight"] == (0.5, 0.25)
    assert got["projection.weight"] == got["neck.weight"] == got["pool.p"] == (2, 0.25)
    assert "neck.bias" not in got


def test_a_transformers_groups_spare_vectors_and_positions_from_decay():
    got = rates(make("test_vit", projection=5))
    assert got["backbone.blocks.0.mlp.fc1.weight"] == (0.5, 0.25)
    assert got["backbone.blocks.0.mlp.fc1.bias"] == got["backbone.norm.weight"] == (0.5, 0)
    assert got["backbone.pos_embed"] == got["backbone.cls_token"] == (0.5, 0)
    assert got["projection.weight"] == (2, 0.25)
    assert got["projection.bias"] == got["neck.weight"] == (2, 0)


def test_groups_hold_only_what_is_trained():
    model = make("test_vit", projection=5)
    tune(model, "lora", rank=4)
    got = rates(model)
    inside = {k for k in got if k.startswith("backbone.")}
    assert inside and all(k.endswith((".A", ".B")) for k in inside)
    head = make(projection=5)
    tune(head, "head")
    assert set(rates(head)) == {"projection.weight", "projection.bias", "neck.weight"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet50", "convnet"),
        ("resnet50_ibn_a", "convnet"),
        ("iresnet50", "convnet"),
        ("legacy_seresnet50", "convnet"),
        ("efficientnet_b0", "convnet"),
        ("vgg16", "convnet"),
        ("convnext_tiny.fb_in22k", "convnext"),
        ("convnextv2_tiny", "convnext"),
        ("vit_small_patch16_224", "transformer"),
        ("vit_small_patch14_dinov2.lvd142m", "transformer"),
        ("vit_small_patch16_dinov3", "transformer"),
        ("swin_tiny_patch4_window7_224", "transformer"),
        ("deit3_small_patch16_224", "transformer"),
        ("vit_giant_patch14_dinov2", "transformer"),
    ],
)
def test_the_family_of_a_backbone(name, kind):
    assert family(name) == kind


def test_rates_fall_with_what_can_be_forgotten():
    def rate(name: str, how: str, **values: float) -> float:
        value, why = default_lr(name, how, **values)  # type: ignore[arg-type]
        assert why and "\n" not in why
        return value

    vit, cnn = "vit_small_patch16_224", "resnet50"
    assert rate(vit, "all") < rate("convnext_tiny", "all") < rate(cnn, "all")
    assert rate(cnn, "all") < rate(vit, "lora") < rate(vit, "head") == rate(cnn, "head")
    assert rate(cnn, "all", convnet=3.5e-4) == 3.5e-4
    assert rate(vit, "all", convnet=3.5e-4) == rate(vit, "all")
    assert rate("convnext_tiny", "all", convnet=1e-5) == 1e-5
    with pytest.raises(UserError, match="no such backbone"):
        default_lr("resent50", "all")
