"""Backbones: any of timm, IBN-A's structure, and the last stride."""

from __future__ import annotations

import pytest
import timm
import torch
from PIL import Image
from torch import nn

from resight.data.transforms import Preprocess
from resight.errors import UserError
from resight.models.backbones import IBN_A, SENET, check_backbone, create_backbone
from resight.models.embedder import Embedder, EmbedderConfig
from resight.models.ibn import IBN
from resight.models.iresnet import DEPTHS, WIDTHS, IResNet
from resight.models.open import open_embedder, preprocess_for


def config(backbone: str, size: tuple[int, int] = (96, 64), **values: object) -> EmbedderConfig:
    return EmbedderConfig(backbone=backbone, preprocess=Preprocess(size=size), **values)  # type: ignore[arg-type]


def map_of(name: str, stride: int, size: tuple[int, int] = (64, 96)) -> tuple[int, ...]:
    model, got = create_backbone(name, size, stride)  # type: ignore[arg-type]
    assert got == stride
    with torch.no_grad():
        return tuple(model.forward_features(torch.zeros(1, 3, *size)).shape[2:])  # type: ignore[operator]


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100", "efficientnet_b0"])
def test_last_stride_1_doubles_the_map(name):
    assert map_of(name, 2) == (2, 3)
    assert map_of(name, 1) == (4, 6)


def test_last_stride_1_keeps_the_weights_and_their_names():
    """Only a stride changes: published weights fit, and on the even cells the maps agree."""
    two, _ = create_backbone("test_efficientnet", (64, 64), 2)
    one, got = create_backbone("test_efficientnet", (64, 64), 1)
    assert got == 1
    one.load_state_dict(two.state_dict())
    strides = [
        (a.stride, b.stride)
        for a, b in zip(two.modules(), one.modules(), strict=True)
        if isinstance(a, nn.Conv2d) and isinstance(b, nn.Conv2d) and a.stride != b.stride
    ]
    assert strides == [((2, 2), (1, 1))]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit", "test_nfnet"])
def test_where_the_stride_cannot_go_it_stays_and_the_config_says_so(name):
    model = Embedder(config(name, (64, 32), last_stride=1))
    assert model.config.last_stride == 2
    if name == "test_nfnet":  # its last stage was tried and put back
        plain = timm.create_model(name, num_classes=0)
        with torch.no_grad():
            wanted = plain.eval().forward_features(torch.zeros(1, 3, 64, 32)).shape
            assert model.backbone.forward_features(torch.zeros(1, 3, 64, 32)).shape == wanted


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit_relpos", "test_resnet"])
def test_images_smaller_than_the_probe_for_the_stride(name):
    model = Embedder(config(name, (32, 32))).eval()
    assert model.embed_tensor(torch.zeros(2, 3, 32, 32)).shape == (2, model.dim)


@pytest.mark.parametrize("name", timm.list_models("test_*"))
def test_any_architecture_at_a_size_that_is_not_square(name):
    """CNNs, transformers, hybrids; maps with the channels first or last, tokens, wide heads."""
    model = Embedder(config(name)).eval()
    images = torch.randn(2, 3, 96, 64)
    got = model.embed_tensor(images)
    assert got.shape == (2, model.dim) and torch.isfinite(got).all()
    f, e = model(images)
    assert f.shape == e.shape == got.shape
    if model.config.pooling == "average":
        with torch.no_grad():
            torch.testing.assert_close(f, model.backbone.forward_features(images).mean((2, 3)))
    else:  # the backbone's own feature before its classifier, which we took away
        with torch.no_grad():
            torch.testing.assert_close(f, model.backbone(images))


def test_pooling_and_projection():
    own = Embedder(config("mobilenetv3_small_050", (32, 32), pooling="model"))
    assert own.dim == 1024  # its head widens the map's 288 channels
    ours = Embedder(config("mobilenetv3_small_050", (32, 32), pooling="gem", projection=10))
    assert ours.dim == 10 and ours.projection.in_features == 288
    assert ours.embed_tensor(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(UserError, match="gives no map to pool; use pooling 'model'"):
        Embedder(config("test_vit", (32, 32), pooling="gem"))


def test_ibn_a_has_ibn_behind_the_first_convolution_of_stages_1_to_3_only():
    model, stride = create_backbone(IBN_A, (64, 32), 1)
    blocks = {"layer1": 3, "layer2": 4, "layer3": 6}
    expected = {f"{stage}.{k}.bn1" for stage, n in blocks.items() for k in range(n)}
    assert {name for name, part in model.named_modules() if isinstance(part, IBN)} == expected
    for name in expected:
        norm, conv = model.get_submodule(name), model.get_submodule(name.replace("bn", "conv"))
        assert norm.IN.num_features == conv.out_channels // 2
        assert norm.BN.num_features == conv.out_channels // 2
        assert norm.IN.affine and not norm.IN.track_running_stats
    # Names as in the published weights, and as many of them as they have.
    keys = set(model.state_dict())
    assert {"layer1.0.bn1.IN.weight", "layer3.5.bn1.BN.running_var", "bn1.weight"} <= keys
    assert "layer4.0.bn1.IN.weight" not in keys and "layer4.0.bn1.weight" in keys
    plain = timm.create_model("resnet50", num_classes=0)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in plain.parameters())
    assert stride == 1
    with torch.no_grad():
        assert model.forward_features(torch.zeros(1, 3, 64, 32)).shape == (1, 2048, 4, 2)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resent18", "resnet18"), ("resnet50_ibn", IBN_A), ("ires50", "iresnet50"), ("qqqqqq", None)],
)
def test_an_unknown_backbone_suggests_near_ones(name, near):
    with pytest.raises(UserError) as error:
        create_backbone(name, (64, 64), 1)
    assert name in str(error.value) and "\n" not in str(error.value)
    assert (near in str(error.value)) if near else ("did you mean" not in str(error.value))
    check_backbone("resnet18.a1_in1k")


def test_a_size_that_does_not_fit_is_a_clear_error():
    with pytest.raises(UserError, match="test_vit can't take images of 50 x 50"):
        create_backbone("test_vit", (50, 50), 1)


def test_arcfaces_resnet_has_the_published_names_and_shapes():
    """As in insightface's files, so that one loads strictly; 43.59 million weights."""
    model, stride = create_backbone("iresnet50", (112, 112), 1)
    assert stride == 2  # its head wants the whole map
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]

    def block(first: bool) -> set[str]:
        norms = {f"{name}.{leaf}" for name in ("bn1", "bn2", "bn3") for leaf in norm}
        names = norms | {"conv1.weight", "conv2.weight", "prelu.weight"}
        if first:
            names |= {"downsample.0.weight"} | {f"downsample.1.{leaf}" for leaf in norm}
        return names

    expected = {"conv1.weight", "prelu.weight", "fc.weight", "fc.bias"}
    expected |= {f"{name}.{leaf}" for name in ("bn1", "bn2", "features") for leaf in norm}
    for stage, depth in enumerate((3, 4, 14, 3), 1):
        for k in range(depth):
            expected |= {f"layer{stage}.{k}.{name}" for name in block(k == 0)}
    state = model.state_dict()
    assert set(state) == expected
    assert state["fc.weight"].shape == (512, 512 * 7 * 7)
    assert sum(p.numel() for p in model.parameters()) == 43_590_848
    assert not model.features.weight.requires_grad  # type: ignore[union-attr]
    mean = preprocess_for("iresnet50", (112, 112))
    assert mean.mean == mean.std == (0.5, 0.5, 0.5)


def test_arcfaces_resnet_is_what_the_paper_draws():
    """By hand, from the parts: a stem without stride, blocks without a last activation."""
    torch.manual_seed(0)
    model = IResNet((1, 2, 1, 1), (40, 24)).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            part.running_mean.normal_(std=0.3)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    x = torch.randn(2, 3, 40, 24)
    with torch.no_grad():
        out = model.prelu(model.bn1(model.conv1(x)))
        assert out.shape == (2, 64, 40, 24)
        for name, width in zip(("layer1", "layer2", "layer3", "layer4"), WIDTHS, strict=True):
            for b in model.get_submodule(name).children():
                shortcut = b.downsample(out)
                out = b.conv1(b.bn1(out))
                out = b.conv2(b.prelu(b.bn2(out)))
                out = b.bn3(out) + shortcut
            assert out.shape[1] == width and (out < 0).any()
        assert out.shape == (2, 512, 3, 2)
        flat = torch.stack([image.reshape(-1) for image in model.bn2(out)])
        expected = model.features(flat @ model.fc.weight.T + model.fc.bias)
        torch.testing.assert_close(model(x), expected)
        torch.testing.assert_close(model.forward_features(x), model.bn2(out))


def test_arcfaces_resnet_in_an_embedder(monkeypatch, tmp_path):
    monkeypatch.setitem(DEPTHS, "iresnet50", (1, 1, 1, 1))  # for speed
    model = Embedder(config("iresnet50", (48, 32), bn_neck=False)).eval()
    assert model.config.pooling == "model" and model.dim == 512
    x = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.embed_tensor(x), model.backbone(x))
    loaded = Embedder.load(model.save(tmp_path), "cpu")
    assert torch.equal(loaded.embed_tensor(x), model.embed_tensor(x))
    with pytest.raises(UserError, match="this network takes 48 x 32 only"):
        model.embed_tensor(x, scales=(1, 2))
    pooled = Embedder(config("iresnet50", (48, 32), pooling="gem", projection=9)).eval()
    assert pooled.embed_tensor(x, scales=(1, 2)).shape == (2, 9)
    assert open_embedder("iresnet50", weights="none", device="cpu").preprocess.size == (112, 112)


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224"])
def test_a_vision_transformer_takes_other_sizes_too(name):
    """At another scale its positions are interpolated; at its own nothing is."""
    model = Embedder(config(name, bn_neck=False)).eval()
    images = torch.randn(2, 3, 96, 64)
    fixed = timm.create_model(name, img_size=(96, 64), num_classes=0, dynamic_img_size=False)
    fixed.load_state_dict(model.backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model.embed_tensor(images), fixed.eval()(images))
    assert model.embed_tensor(images, scales=(1, 0.5)).shape == (2, model.dim)


def test_vggface2s_senet_takes_pixels_of_255_without_their_mean():
    preprocess = preprocess_for(SENET, (224, 224), "crop")
    grey = preprocess(Image.new("RGB", (300, 250), (131, 104, 91)))
    torch.testing.assert_close(grey.mean((1, 2)), torch.tensor([-0.0912, 0.1173, -0.4953]))
