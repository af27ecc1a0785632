"""Settings: from YAML and name=value pairs to a checked model, every error in one go."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from resight.errors import UserError
from resight.settings import apply_pairs, build, dump_yaml, read_yaml


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    kind: Literal["a", "b"] = "a"


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    epochs: int = 10
    inner: Inner = Inner()
    maybe: Inner | None = None
    size: tuple[int, int] = (4, 8)

    @field_validator("epochs")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("Must be even")
        return value


def faults(values: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as error:
        build(Outer, values, "recipe.yaml")
    return str(error.value).split("\n")


def test_every_fault_has_a_line():
    values = {"epochs": 3, "inner": {"flip": 2, "kin": "a"}, "sise": [1, 2], "size": [1, "x"]}
    assert faults(values) == [
        "recipe.yaml: the setting 'name' is missing",
        "recipe.yaml: epochs = 3: must be even",
        "recipe.yaml: inner.flip = 2: input should be less than or equal to 1",
        "recipe.yaml: no setting 'inner.kin'; did you mean kind?",
        "recipe.yaml: size.1 = 'x': input should be a valid integer, "
        "unable to parse string as an integer",
        "recipe.yaml: no setting 'sise'; did you mean size?",
    ]


def test_a_name_like_no_other_lists_all():
    known = "name, epochs, inner, maybe, size"
    assert faults({"name": "x", "qqq": 1}) == [f"recipe.yaml: no setting 'qqq'; there are: {known}"]
    assert faults({"name": "x", "inner": {"qqq": 1}}) == [
        "recipe.yaml: no setting 'inner.qqq'; there are: flip, kind"
    ]
    assert faults({"name": "x", "maybe": {"flipp": 1}})[0].startswith(
        "recipe.yaml: no setting 'maybe.flipp'"
    )


def test_values_of_the_wrong_shape():
    assert faults({"name": "x", "inner": 3})[0].startswith("recipe.yaml: inner = 3: input should")
    assert faults({"name": ["x"]})[0].startswith("recipe.yaml: name = ['x']: input should be")


def test_pairs_set_dotted_names():
    values = {"name": "x", "inner": {"kind": "b"}}
    pairs = ["inner.flip=0", "epochs = 4", "size=[1, 2]", "maybe.flip=1e-1", "name=a=b"]
    built = build(Outer, apply_pairs(values, pairs), "--set")
    assert (built.inner.flip, built.inner.kind, built.epochs) == (0, "b", 4)
    assert built.size == (1, 2) and built.name == "a=b"
    assert built.maybe is not None and built.maybe.flip == 0.1
    assert build(Outer, apply_pairs(values, ["maybe="]), "--set").maybe is None
    assert apply_pairs({}, ["a=1", "a=2"]) == {"a": 2}


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("epochs", "--set epochs: not of the form name=value"),
        ("=3", "--set =3: not of the form name=value"),
        ("size=[1", "--set size=[1: '[1' is not a value"),
        ("epochs.a=3", "--set epochs.a=3: epochs has no settings of its own"),
    ],
)
def test_pairs_that_are_none(pair, message):
    with pytest.raises(UserError) as error:
        apply_pairs({"epochs": 4}, [pair])
    assert str(error.value) == message


scalar = st.integers() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5)


@given(path=st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=3), value=scalar)
def test_a_pair_sets_what_yaml_reads(path, value):
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n")
    inner: Any = apply_pairs({}, [".".join(path) + "=" + text])
    for part in path:
        assert list(inner) == [part]
        inner = inner[part]
    assert inner == value and type(inner) is type(value)


def test_settings_written_and_read_again_are_the_same(tmp_path):
    outer = Outer(name="ä: #", epochs=2, inner=Inner(flip=0.1), size=(3, 5))
    path = tmp_path / "a.yaml"
    path.write_text(dump_yaml(outer), encoding="utf-8")
    assert build(Outer, read_yaml(path), "a.yaml") == outer
    assert dump_yaml(outer).startswith("name: 'ä: #'\nepochs: 2\n")  # in their order, readable


def test_yaml_files_that_hold_no_settings(tmp_path):
    path = tmp_path / "a.yaml"
    with pytest.raises(UserError, match="no such settings file"):
        read_yaml(path)
    path.write_text("# nothing yet\n")
    assert read_yaml(path) == {}
    for content in ("a: [1", "a: b: c", "\tx: 1"):
        path.write_text(content)
        with pytest.raises(UserError, match="not valid YAML") as error:
            read_yaml(path)
        assert "\n" not in str(error.value)
    path.write_bytes(b"a: \xff")
    with pytest.raises(UserError, match="not valid YAML"):
        read_yaml(path)
    for content in ("- a\n", "word\n", "3\n"):
        path.write_text(content)
        with pytest.raises(UserError, match="lines of the form name: value"):
            read_yaml(path)


class Round(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["round"] = "round"
    radius: Annotated[float, Field(gt=0)] = 1


class Square(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["square"] = "square"
    side: float = 1


class Drawing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    shape: Annotated[Round | Square, Field(discriminator="name")] = Round()
    pen: Square | None = None

    @model_validator(mode="after")
    def _thin(self) -> Drawing:
        if self.pen is not None and self.pen.side > 9:
            raise ValueError("pen: too thick for any shape")
        return self


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"shape": {"name": "squar"}}, "f: no shape 'squar'; did you mean square?"),
        ({"shape": {"name": "x"}}, "f: no shape 'x'; there are: round, square"),
        (
            {"shape": {"name": "square", "radius": 2}},
            "f: no setting 'shape.radius'; there are: name, side",
        ),
        (
            {"shape": {"name": "round", "radus": 2}},
            "f: no setting 'shape.radus'; did you mean radius?",
        ),
        ({"pen": {"sid": 2}}, "f: no setting 'pen.sid'; did you mean side?"),
        ({"pen": {"side": 10}}, "f: pen: too thick for any shape"),
    ],
)
def test_faults_inside_a_choice_are_named_as_they_were_written(values, line):
    with pytest.raises(UserError) as caught:
        build(Drawing, values, "f")
    assert str(caught.value) == line


def test_a_value_inside_a_choice():
    with pytest.raises(UserError, match=r"^f: shape.radius = -1: input should be greater than 0"):
        build(Drawing, {"shape": {"name": "round", "radius": -1}}, "f")
