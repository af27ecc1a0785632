"""`resight recipes`: the list, one file, and the check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import resight
from resight.train.catalogue import find_recipe, recipe_names


def test_the_list_has_figures_beside_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert resight("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if " fastap_sop " in line)
    assert "384" in row and "224x224" in row and "R@1 76.4 (unverified)" in row
    row = next(line for line in lines if " xbm_sop " in line)
    assert "contrastive + memory" in row
    row = next(line for line in lines if " folder " in line)
    assert "infonce + memory" in row


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert resight("recipes", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert sorted(rows) == recipe_names()
    assert rows["ctl_street2shop_large"]["batch"] == 56
    figures = rows["smooth_ap_sop"]["published"]
    assert {"R@1", "R@10"} <= {one["metric"] for one in figures}
    assert rows["insclr_gldv2"]["batch"] == 256 and rows["folder"]["batch"] is None
    assert rows["ablation_batch"]["kind"] == "sweep" and rows["ablation_batch"]["batch"] is None


def test_show_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert resight("recipes", "show", "small") == 0
    assert capsys.readouterr().out == find_recipe("small").read_text()
    assert resight("recipes", "show", "smal") == 2
    assert "did you mean small?" in capsys.readouterr().err


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert resight("recipes", "check") == 0
    assert f"{len(recipe_names())} recipes checked, no fault" in capsys.readouterr().out
    bad, good = tmp_path / "bad.yaml", tmp_path / "good.yaml"
    bad.write_text("backbone: resnet_18\nmilestones: [9, 3]\n")
    good.write_text("backbone: resnet18\n")
    assert resight("recipes", "check", str(good)) == 0
    capsys.readouterr()
    assert resight("recipes", "check", str(good), str(bad)) == 1
    error = capsys.readouterr().err
    assert error.count(str(bad)) == 2 and str(good) not in error
    assert "2 recipes checked, 2 faults" in error
