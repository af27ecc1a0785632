"""A checkpoint comes back as it was, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.damage import flip

from resight.errors import UserError
from resight.train import checkpoint


def test_a_round_trip_and_every_kind_of_damage(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    content = {"model": {"w": torch.arange(3000.0)}, "position": {"step": 7}}
    with pytest.raises(UserError, match=r"no checkpoint yet; start the run anew"):
        checkpoint.load(path)
    checkpoint.save(path, content)
    back = checkpoint.load(path)
    assert torch.equal(back["model"]["w"], content["model"]["w"])
    assert back["position"] == {"step": 7}
    whole = path.read_bytes()
    at = whole.index(torch.arange(3000.0)[1000:1004].numpy().tobytes())
    flip(path, at)
    with pytest.raises(UserError, match=r"last\.pt: damaged, not what was written .*anew"):
        checkpoint.load(path)
    for broken in (b"", whole[:500], whole[:-30], b"no archive at all" * 100):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"last\.pt: damaged") as error:
            checkpoint.load(path)
        assert "\n" not in str(error.value)


def test_whatever_byte_is_broken_it_is_refused_or_right(tmp_path: Path) -> None:
    path, content = tmp_path / "last.pt", {"w": torch.arange(20.0)}
    checkpoint.save(path, content)
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), 7):
        path.write_bytes(whole)
        flip(path, at)
        try:
            assert torch.equal(checkpoint.load(path)["w"], content["w"])
        except UserError:
            refused += 1
    assert refused > 50
