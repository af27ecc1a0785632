"""Weights from files: matched by name, reported key by key, and never unpickled."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from resight.errors import UserError
from resight.models.backbones import OURS, SENET, create_backbone
from resight.models.weights import load_backbone_weights, read_state


def backbone(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("test_resnet", num_classes=0)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return backbone(1).state_dict()


class Evil:
    """Touches a file when unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


def same(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[key], value) for key, value in state.items() if key in own)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.base.", "model.encoder."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "net"])
def test_torch_files_with_wrappers_and_prefixes(tmp_path, state, prefix, wrapper):
    content: dict = {prefix + key: value for key, value in state.items()}
    content[prefix + "fc.weight"] = torch.zeros(3, 3)
    if wrapper:
        content = {wrapper: content, "epoch": 7, "args": {"lr": 0.1}}
    torch.save(content, tmp_path / "w.pth")
    model = backbone(2)
    match = load_backbone_weights(model, "test_resnet", str(tmp_path / "w.pth"))
    assert same(model, state)
    assert match.loaded == len(state) and not match.missing and not match.misshapen
    assert match.unused == ("fc.weight",)


def test_safetensors(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    model = backbone(2)
    assert not same(model, state)
    match = load_backbone_weights(model, "test_resnet", str(tmp_path / "w.safetensors"))
    assert same(model, state) and match.unused == ()
    assert match.lines() == [f"weights {tmp_path / 'w.safetensors'}: {len(state)} tensors loaded"]


def test_every_absent_and_misshapen_key_is_reported(tmp_path, state):
    gone = ["conv1.0.weight", "layer4.0.conv1.weight"]
    bent = ["layer1.0.conv1.weight", "bn1.weight"]
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    content = {k: v for k, v in state.items() if k not in gone and k not in counters}
    assert len(content) == len(state) - len(counters) - 2
    content |= {key: torch.zeros(7, 5) for key in bent} | {"head.weight": torch.zeros(2)}
    save_file(content, tmp_path / "w.safetensors")
    source = str(tmp_path / "w.safetensors")

    untouched = backbone(3)
    with pytest.raises(UserError) as error:
        load_backbone_weights(untouched, "test_resnet", source)
    assert "not weights of test_resnet: 4 of its" in str(error.value)
    assert "partial_weights=true" in str(error.value)

    model = backbone(3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    match = load_backbone_weights(model, "test_resnet", source, partial=True)
    assert set(match.missing) == set(gone) and set(match.misshapen) == set(bent)
    assert match.unused == ("head.weight",)
    assert match.loaded == len(content) - 3
    after = model.state_dict()
    for key in state:
        kept = key in gone or key in bent or key in counters
        assert torch.equal(after[key], before[key] if kept else state[key]), key
    text = "\n".join(match.lines())
    assert all(key in text for key in [*gone, *bent, "head.weight"])


@pytest.mark.parametrize("partial", [False, True])
def test_weights_of_another_model_are_refused_even_in_part(tmp_path, partial):
    save_file({"blocks.0.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="are not weights of test_resnet"):
        load_backbone_weights(
            backbone(1), "test_resnet", str(tmp_path / "w.safetensors"), partial=partial
        )


@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "safetensors"])
@pytest.mark.parametrize("form", ["pickle", "torch", "old torch"])
def test_a_malicious_file_is_refused_and_nothing_of_it_runs(tmp_path, ending, form):
    mark, path = tmp_path / "pwned", tmp_path / f"w.{ending}"
    content = {"state_dict": {"conv1.weight": torch.zeros(2)}, "hook": Evil(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(Evil(mark)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(UserError) as error:
        load_backbone_weights(backbone(1), "test_resnet", str(path))
    assert not mark.exists()
    text = str(error.value)
    assert str(path) in text and "\n" not in text and "\x1b" not in text
    assert "weights_only" not in text  # torch's own advice is to switch the safety off
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists(), "the attack itself does not work"


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", b"version https://git-lfs"],
    ids=["empty", "html", "lfs pointer"],
)
def test_a_file_that_holds_no_weights(tmp_path, ending, content):
    path = tmp_path / f"w.{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_backbone_weights(backbone(1), "test_resnet", str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_tensors_must_have_names(tmp_path):
    for content in ([torch.zeros(3)], {"epoch": 3}, torch.zeros(2)):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(UserError, match="holds no tensors by name"):
            read_state(tmp_path / "w.pth")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_a_user_error_whatever_the_damage(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    old = data.draw(st.booleans())
    torch.save({"state_dict": {"a": torch.ones(4)}}, path, _use_new_zipfile_serialization=not old)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content = bytearray(data.draw(st.binary(max_size=80)))
    path.write_bytes(bytes(content))
    with pytest.raises(UserError):
        read_state(path)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_vit", (96, 64)),
        ("test_vit2", (80, 320)),  # with as many cells as the published grid of 160 x 160
        ("test_vit4", (192, 160)),
        ("eva02_tiny_patch14_224", (112, 56)),
    ],
)
def test_positions_are_interpolated_to_another_size(tmp_path, name, size):
    """The oracle: the published model itself, which interpolates at each forward pass."""
    torch.manual_seed(0)
    published = timm.create_model(name, num_classes=0, dynamic_img_size=True).eval()
    torch.nn.init.normal_(published.pos_embed)
    save_file(published.state_dict(), tmp_path / "w.safetensors")
    model, _ = create_backbone(name, size, 2)
    match = load_backbone_weights(model, name, str(tmp_path / "w.safetensors"))
    assert not match.missing and not match.misshapen and not match.unused
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(model(images), published(images), rtol=1e-4, atol=1e-4)
    if published.pos_embed.shape != model.pos_embed.shape:
        assert match.resampled == ("pos_embed",)
        assert "  1 resampled to this image size: pos_embed" in match.lines()


def test_other_shapes_than_positions_are_still_refused(tmp_path):
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    state["blocks.0.mlp.fc1.weight"] = torch.zeros(3, 3)
    save_file(state, tmp_path / "w.safetensors")
    model, _ = create_backbone("test_vit", (64, 32), 2)
    with pytest.raises(UserError, match=r"1 of its .*blocks\.0\.mlp\.fc1\.weight"):
        load_backbone_weights(model, "test_vit", str(tmp_path / "w.safetensors"))


def test_the_names_of_vggface2s_senet(tmp_path):
    """Both published forms; the second takes BGR, so that its first layer is turned."""
    model, stride = create_backbone(SENET, (64, 64), 2)
    assert stride == 2 and model.layer2[0].conv1.stride == (2, 2)  # type: ignore[index, union-attr]
    state = {k: torch.rand_like(v) for k, v in model.state_dict().items() if v.is_floating_point()}
    caffe = {
        "conv1": "conv{}_1x1_reduce",
        "bn1": "conv{}_1x1_reduce_bn",
        "conv2": "conv{}_3x3",
        "bn2": "conv{}_3x3_bn",
        "conv3": "conv{}_1x1_increase",
        "bn3": "conv{}_1x1_increase_bn",
        "se_module.fc1": "conv{}_1x1_down",
        "se_module.fc2": "conv{}_1x1_up",
        "downsample.0": "conv{}_1x1_proj",
        "downsample.1": "conv{}_1x1_proj_bn",
    }
    first, second = {}, {}
    for key, value in state.items():
        owner, leaf = key.rsplit(".", 1)
        if owner.startswith("layer0"):
            part = owner.removeprefix("layer0.")
            first[f"{'conv1_7x7_s2' + '_bn' * (part == 'bn1')}.{leaf}"] = value
            second[f"{part}.{leaf}"] = value
        else:
            stage, block, part = owner.removeprefix("layer").split(".", 2)
            first[caffe[part].format(f"{int(stage) + 1}_{int(block) + 1}") + "." + leaf] = value
            part = {"se_module.fc1": "conv4", "se_module.fc2": "conv5"}.get(part, part)
            second[f"layer{stage}.{block}.{part}.{leaf}"] = value
    second["conv1.weight"] = second["conv1.weight"].flip(1).contiguous()
    second["fc.weight"] = torch.zeros(7, 2048)
    assert len(first) == len(state) == len(second) - 1
    for content, unused in ((first, ()), (second, ("fc.weight",))):
        save_file(content, tmp_path / "w.safetensors")
        model, _ = create_backbone(SENET, (64, 64), 2)
        match = load_backbone_weights(model, SENET, str(tmp_path / "w.safetensors"))
        assert same(model, state) and match.loaded == len(state) and match.unused == unused


def test_names_that_are_no_files(monkeypatch):
    model = backbone(1)
    with pytest.raises(UserError, match=r"--weights no/such\.pth: no such file"):
        load_backbone_weights(model, "test_resnet", "no/such.pth")
    with pytest.raises(UserError, match=r"neither a file nor a timm weight name .*r160_in1k"):
        load_backbone_weights(model, "test_resnet", "nonsense")
    for name in OURS:
        with pytest.raises(UserError, match=f"timm has none for {name}; give a file"):
            load_backbone_weights(model, name, "imagenet")

    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr(
        "urllib.request.getproxies", lambda: {"https": "x"}
    )  # no attempt to connect
    with pytest.raises(UserError, match=r"can't be fetched from the hub \(ConnectionError\)"):
        load_backbone_weights(model, "test_resnet", "imagenet")
