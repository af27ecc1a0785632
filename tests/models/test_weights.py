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
from resight.models import weights
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


def test_names_that_are_no_files(monkeypatch):
    model = backbone(1)
    with pytest.raises(UserError, match=r"--weights no/such\.pth: no such file"):
        load_backbone_weights(model, "test_resnet", "no/such.pth")
    with pytest.raises(UserError, match=r"neither a file nor a timm weight name .*r160_in1k"):
        load_backbone_weights(model, "test_resnet", "nonsense")
    with pytest.raises(UserError, match="timm has none for resnet50_ibn_a"):
        load_backbone_weights(model, "resnet50_ibn_a", "imagenet")

    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr(weights, "getproxies", lambda: {"https": "x"})  # no attempt to connect
    with pytest.raises(UserError, match=r"can't be fetched from the hub \(ConnectionError\)"):
        load_backbone_weights(model, "test_resnet", "imagenet")
