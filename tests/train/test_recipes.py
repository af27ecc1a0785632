"""The recipe files: sound, found, and saying what the papers say; and that faults are seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from resight.errors import UserError
from resight.evaluate.records.published import FIGURES
from resight.train import catalogue
from resight.train.catalogue import About, find_recipe, read_recipe, recipe_names
from resight.train.recipe_check import faults
from resight.train.recipes import RECIPES
from resight.train.sweeps import plan

GOOD = """# A recipe.
#
#   resight train IMAGES --config mine --out RUN
#
# Needs nothing.
recipe: ctl
backbone: resnet18
epochs: 30
warmup: 3
milestones: [10, 20]
"""


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_sound(name: str) -> None:
    assert faults(find_recipe(name)) == []


def test_every_row_of_the_papers_has_its_file() -> None:
    ctl = ["market1501", "dukemtmc"]
    ctl += [f"{s}{large}" for s in ("deepfashion", "street2shop") for large in ("", "_large")]
    wanted = {f"ctl_{row}{without}" for row in ctl for without in ("", "_without")}
    sets = ("sop", "vehicleid", "inat2018")
    losses = ("triplet", "proxy_nca", "fastap", "blackbox_ap", "xbm", "contrastive", "smooth_ap")
    wanted |= {f"{loss}_{s}" for loss in losses for s in sets}
    wanted |= {"smooth_ap_sop_224", "smooth_ap_inat2018_224"}
    faces = ("vggface2", "ijbc")
    wanted |= {f"smooth_ap_{s}{net}" for s in faces for net in ("", "_arcface")}
    wanted |= {f"ablation_{what}" for what in ("temperature", "positives", "batch")}
    wanted |= {"insclr_gldv2", "insclr_instre", "ablation_unlabelled"}
    ours = {"small", "folder", "compare_unlabelled", "compare_graph", "compare_losses"}
    ours |= {"compare_temperature"}
    ours |= {"defaults"}
    assert wanted | ours == set(recipe_names())


def test_rows_differ_only_in_what_they_compare() -> None:
    """With and without CTL; a comparator and Smooth-AP; the sets by what the paper says."""
    for name in recipe_names():
        values = read_recipe(name)[0]
        if name.endswith("_without"):
            with_it = read_recipe(name.removesuffix("_without"))[0]
            assert values == with_it | {"ctl_weight": 0.0}
        loss, _, where = name.rpartition("_")
        if where in ("sop", "vehicleid", "inat2018"):
            own = {"loss", "loss_lr", "memory"}
            base = read_recipe(f"smooth_ap_{where}")[0]
            assert {k: v for k, v in values.items() if k not in own} == {
                k: v for k, v in base.items() if k not in own
            }, loss
    assert read_recipe("smooth_ap_inat2018")[0]["head_lr"] == 2
    assert read_recipe("ablation_temperature")[0] == read_recipe("smooth_ap_sop")[0]


def test_the_batch_of_an_ablation_is_the_same_where_it_should_be() -> None:
    values, _, sweep = read_recipe("ablation_positives")
    batches = {t.values["ids"] * t.values["images"] for t in plan.trials(values, sweep, "x")}
    assert batches == {384}


def test_the_schedule_of_the_papers() -> None:
    for name, expected in {
        "ctl_market1501": (10, [40, 70]),
        "smooth_ap_sop": (0, [200, 300]),
        "smooth_ap_inat2018": (0, [40, 70]),
    }.items():
        values = read_recipe(name)[0]
        assert RECIPES[values["recipe"]].model_validate(values).schedule() == expected


def test_a_figure_is_found_by_its_paper_and_remark() -> None:
    about = About(protocol=["inat2018"], published="Smooth-AP (ECCV 2020)/batch 224")
    assert [one.value for one in catalogue.figures(about)] == [0.659]
    assert catalogue.published_lines(about) == ["inat2018: R@1 65.9"]
    unverified = About(protocol="sop", published="FastAP, in Smooth-AP")
    assert catalogue.published_lines(unverified)[0].endswith("(unverified)")
    assert catalogue.figures(About(protocol="sop")) == []


def test_every_figure_of_a_supervised_row_is_beside_a_recipe() -> None:
    """But those of a user's run, and of networks before training."""
    shown = {one for name in recipe_names() for one in catalogue.figures(read_recipe(name)[1])}
    supervised = [f for f in FIGURES if "InsCLR" not in f.paper and "user" not in f.remark[:6]]
    left = [f for f in supervised if f not in shown and not f.remark.startswith("before")]
    assert left == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("epochs: 30", "epochs: 15"), "schedule out of order: warm-up 3, milestones 10, 20"),
        (("warmup: 3", "warmup: 12"), "schedule out of order"),
        (("resnet18", "resnet_18"), "no such backbone in timm; did you mean"),
        (("epochs", "epoch"), "no setting 'epoch'; did you mean epochs?"),
        (("epochs: 30", "epochs: many"), "epochs = 'many'"),
        (("recipe: ctl", "recipe: other"), "no recipe 'other'"),
        (("recipe:", "about: {protocol: sopp}\nrecipe:"), "no protocol 'sopp'"),
        (("recipe:", "about: {protocol: sop, published: Nobody}\nrecipe:"), "no published figure"),
        (("recipe:", "about: {protcol: sop}\nrecipe:"), "no setting 'protcol'"),
        (("recipe:", "about: sop\nrecipe:"), "about: needs lines of the form name: value"),
        (("recipe:", "sweep: {seeds: [1, 1]}\nrecipe:"), "seeds lists a value twice"),
        (("recipe:", "sweep: {over: {lrr: [1]}}\nrecipe:"), "no setting 'lrr'"),
        (("recipe:", "sweep: {variants: {A: {lr: -1}}}\nrecipe:"), "lr = -1"),
        (("--config mine", "--config other"), "its head lacks the command"),
        (("train IMAGES", "sweep IMAGES"), "its head lacks the command: resight train"),
        (("Needs nothing", "Nothing"), "what it needs"),
        (("recipe:", "about: {protocol: sop, published: FastAP}\nrecipe:"), "lacks the published"),
    ],
)  # fmt: skip
def test_faults_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], expected: str
) -> None:
    monkeypatch.setattr("resight.train.recipe_check.recipes_folder", lambda: tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    assert faults(path) == []
    assert change[0] in GOOD
    path.write_text(GOOD.replace(*change))
    found = faults(path)
    assert len(found) == 1 and expected in found[0] and "mine.yaml" in found[0], found


def test_building_sees_what_settings_cannot(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: ctl\nbackbone: test_vit\npooling: gem\nsize: [33, 33]\n")
    assert faults(path) == []
    assert len(faults(path, build=True)) == 1


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("small").name == "small.yaml" and find_recipe("small").is_file()
    (tmp_path / "small").mkdir()  # a folder of this name, say of a run, is no recipe
    assert find_recipe("small").parent == catalogue.recipes_folder()
    (tmp_path / "small").rmdir()
    (tmp_path / "small").write_text("epochs: 3\n")
    assert read_recipe("small")[0] == {"epochs": 3}
    with pytest.raises(UserError, match="did you mean small"):
        find_recipe("smal")
    with pytest.raises(UserError, match="no such settings file"):
        find_recipe("elsewhere/small.yaml")


def test_an_installed_package_brings_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built as a wheel, resight/recipes holds the files."""
    import tomllib

    root = Path(__file__).parents[2]
    build = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["force-include"] == {"recipes": "resight/recipes"}
    monkeypatch.setattr(catalogue, "_PACKAGE", tmp_path / "resight")
    (tmp_path / "resight" / "recipes").mkdir(parents=True)
    (tmp_path / "resight" / "recipes" / "only.yaml").write_text("epochs: 3\n")
    assert recipe_names() == ["only"]
