"""`resight export`: the file, what stands beside it, and when nothing is written."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from command import resight
from resight.data.sources import load_images
from resight.data.transforms import Preprocess
from resight.errors import UserError
from resight.evaluate.exported import export_embedder
from resight.models.embedder import Embedder, EmbedderConfig
from resight.models.export.session import start


def run_page(folder: Path, photo: Path, monkeypatch) -> np.ndarray:
    """The vector that the example of README.md computes."""
    page = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(code.replace('"photo.jpg"', repr(str(photo))), names)
    return names["vector"]


@pytest.mark.parametrize("resize", ["stretch", "crop", "fit"])
@pytest.mark.parametrize("normalise", [False, True])
def test_the_example_gives_the_embedders_vector(
    embedder, shapes, tmp_path, monkeypatch, resize, normalise
):
    import copy

    model = copy.deepcopy(embedder)
    prepare = Preprocess(size=(40, 32), resize=resize, interpolation="bicubic")
    model.config = model.config.model_copy(update={"preprocess": prepare})
    record = export_embedder(model, tmp_path / "out", normalise=normalise)
    photo = shapes / "object 03" / "foto_ä1.png"
    vector = run_page(tmp_path / "out", photo, monkeypatch)
    assert np.linalg.norm(vector - model.embed(photo)[0]) < 1e-5
    assert record == json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["input"]["type"] == ("uint8" if normalise else "float32")
    assert record["parity"]["from"] == "drawn pictures"
    assert record["parity"]["largest"] < 1e-5 and record["embedder"] == model.fingerprint()


def test_the_record_says_what_the_file_is(embedder, shapes, tmp_path):
    images = load_images(shapes)
    record = export_embedder(
        embedder, tmp_path / "out", images, normalise=True, dynamic=True, flip=True
    )
    session = start(tmp_path / "out" / "model.onnx")
    given, gives = session.get_inputs()[0], session.get_outputs()[0]
    assert given.name == record["input"]["name"] and gives.name == record["output"]["name"]
    assert given.type == f"tensor({record['input']['type']})"
    assert given.shape == record["input"]["shape"] == ["images", "height", "width", 3]
    assert record["output"]["shape"][1] == embedder.dim
    parity = record["parity"]
    assert parity["images"] == len(images) and parity["mean"] <= parity["largest"] < 1e-5
    from resight.evaluate.run import measure
    from resight.features.compute import EmbedOptions, embed_rows

    vectors = embed_rows(embedder, images, options=EmbedOptions(flip=True, workers=0))[0]
    assert parity["mAP"]["torch"] == pytest.approx(measure(vectors, images).mAP, abs=1e-6)
    assert parity["mAP"]["onnx"] == pytest.approx(parity["mAP"]["torch"], abs=1e-4)


def test_number_types(embedder, shapes, tmp_path):
    images, sizes = load_images(shapes), {}
    for dtype in ("float32", "float16", "int8"):
        record = export_embedder(embedder, tmp_path / dtype, images, dtype=dtype, normalise=True)
        sizes[dtype] = record["bytes"]
        assert (
            record["dtype"] == dtype
            and record["bytes"] == (tmp_path / dtype / "model.onnx").stat().st_size
        )
        assert (record["parity"]["largest"] < 1e-5) == (dtype == "float32")
    assert sizes["int8"] < 0.45 * sizes["float32"]
    assert sizes["float16"] < 0.6 * sizes["float32"]


def test_a_file_that_differs_is_not_written(embedder, shapes, tmp_path, monkeypatch):
    from resight.models.export import graph

    whole = graph.write_graph

    def other(model, form):
        import copy

        wrong = copy.deepcopy(model)
        with torch.no_grad():
            wrong.neck.running_mean.add_(0.05)
        return whole(wrong, form)

    monkeypatch.setattr(graph, "write_graph", other)
    images = load_images(shapes)
    with pytest.raises(UserError, match=r"the float32 file differs from torch by .*; nothing was"):
        export_embedder(embedder, tmp_path / "out", images)
    assert not (tmp_path / "out").exists()
    export_embedder(embedder, tmp_path / "out", images, bound=2.0)  # as one wishes

    def blind(model, form):
        import copy

        wrong = copy.deepcopy(model)
        with torch.no_grad():
            next(wrong.parameters()).zero_()
        return whole(wrong, form)

    monkeypatch.setattr(graph, "write_graph", blind)
    before = (tmp_path / "out" / "model.onnx").read_bytes()
    with pytest.raises(UserError, match=r"finds less: mAP .* nothing was written"):
        export_embedder(embedder, tmp_path / "out", images, bound=3.0, force=True)
    assert (tmp_path / "out" / "model.onnx").read_bytes() == before


def test_bad_images_are_left_out(embedder, shapes, tmp_path):
    folder = Path(shutil.copytree(shapes / "object 00", tmp_path / "set" / "a")).parent
    (folder / "a" / "bad.png").write_bytes(b"no picture")
    record = export_embedder(embedder, tmp_path / "out", load_images(folder))
    assert record["parity"]["images"] == 5


def test_the_verb(shapes, run_folder, tmp_path, capsys):
    words = ["export", str(run_folder), str(shapes), "--out", str(tmp_path / "out")]
    assert resight(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parity"]["images"] > 20 and Path(told["exported"]).is_dir()
    assert resight(*words) == 2
    assert "--force to replace" in capsys.readouterr().err
    assert resight(*words, "--force", "--dtype", "float16", "--normalise") == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(tmp_path / "out") and "next: resight index" in shown.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--dtype", "bfloat16"], "--dtype bfloat16: choose float32, float16 or int8"),
        (["--dtype", "int8"], "--dtype int8: IMAGES is missing"),
        (["--scales", "0"], "--scales 0: not numbers"),
    ],
)
def test_mistakes_are_one_line(run_folder, tmp_path, capsys, words, line):
    assert resight("export", str(run_folder), "--out", str(tmp_path / "x"), *words) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert line in told and not (tmp_path / "x").exists()
    assert resight("export", str(run_folder)) == 2
    assert "--out is missing" in capsys.readouterr().err


def test_a_transformer_of_one_size_says_so(tmp_path):
    model = Embedder(
        EmbedderConfig(backbone="test_vit", preprocess=Preprocess(size=(64, 64)))
    ).eval()
    with pytest.raises(UserError, match="--dynamic: a graph of test_vit takes images of one size"):
        export_embedder(model, tmp_path / "out", dynamic=True)
    assert not (tmp_path / "out").exists()
