"""Embedding by ONNX Runtime and by torch: the same features, and one of them throughout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from resight.data.loading import Pictures
from resight.data.pixels import Pixels
from resight.data.sources import load_images
from resight.data.transforms import Preprocess
from resight.errors import UserError
from resight.features.compute import EmbedOptions, embed_rows
from resight.features.store import Features
from resight.features.write import embed_images
from resight.models.embedder import Embedder
from resight.models.export import cache, choose
from resight.models.export.session import OnnxEmbedder

INLINE = EmbedOptions(workers=0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """No graphs but those that the test makes."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RESIGHT_CACHE", str(folder))
    monkeypatch.delenv("RESIGHT_RUNTIME", raising=False)
    return folder


@pytest.fixture(scope="module")
def saved(embedder, tmp_path_factory) -> Path:
    """The embedder in a folder, its graph beside it."""
    folder = embedder.save(tmp_path_factory.mktemp("saved") / "model")
    choose.for_use(Embedder.load(folder), "onnx")
    assert [path.suffix for path in sorted((folder / "onnx").iterdir())] == [".json", ".onnx"]
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy of that to do things to."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def apart(one, other) -> float:
    """The largest difference of unit rows."""
    one, other = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.asarray, (one, other))
    )
    return float(np.linalg.norm(one - other, axis=1).max())


def test_the_two_agree(model, shapes):
    images = load_images(shapes)
    torch_ = embed_images(Embedder.load(model), images, options=INLINE, runtime="torch")
    onnx = embed_images(Embedder.load(model), images, options=INLINE, runtime="onnx")
    assert (torch_.info["runtime"], onnx.info["runtime"]) == ("torch", "onnx")
    assert 0 < apart(torch_, onnx) < 1e-5 < choose.BOUND
    orders = []
    for found in (torch_, onnx):
        unit = np.asarray(found) / np.linalg.norm(found, axis=1, keepdims=True)
        orders.append(np.argsort(-(unit @ unit.T), axis=1, kind="stable"))
    assert (orders[0] == orders[1]).mean() > 0.995  # all ranks, of all queries


@pytest.mark.parametrize("options", [{"flip": True}, {"scales": (1.0, 0.7071)}])
def test_options_have_graphs_of_their_own(model, shapes, options):
    images, how = load_images(shapes).rows(range(8)), EmbedOptions(workers=0, **options)
    wanted = embed_images(Embedder.load(model), images, options=how, runtime="torch")
    found = embed_images(Embedder.load(model), images, options=how, runtime="onnx")
    plain = embed_images(Embedder.load(model), images, options=INLINE, runtime="onnx")
    assert apart(wanted, found) < 1e-5 < apart(wanted, plain)
    assert len(list((model / "onnx").glob("*.onnx"))) == 2


def test_shapes_of_their_own(embedder, shapes, tmp_path):
    """ "fit": images that keep their shape."""
    import copy

    other = copy.deepcopy(embedder)
    prepare = Preprocess(size=(40, 32), resize="fit")
    other.config = other.config.model_copy(update={"preprocess": prepare})
    images = load_images(shapes).rows(range(6))
    wanted = embed_images(other, images, options=INLINE, runtime="torch")
    assert apart(wanted, embed_images(other, images, options=INLINE, runtime="onnx")) < 1e-5


def test_the_batch_size_changes_nothing_but_last_digits(model, shapes):
    images = load_images(shapes)
    network = choose.saved_graph(model)
    whole = embed_rows(network, images, options=EmbedOptions(batch_size=32, workers=2))[0]
    for size in (1, 7):
        found = embed_rows(network, images, options=EmbedOptions(batch_size=size, workers=0))[0]
        assert apart(whole, found) < 1e-6


def test_an_interrupted_call_goes_on_with_what_it_began_with(model, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("resight.features.write.SHARD_ROWS", 1)  # 64 rows are the least
    images = load_images(shapes)
    images = images.rows([*range(len(images))] * 3)
    for began, other in (("onnx", "torch"), ("torch", "onnx")):
        whole = embed_images(Embedder.load(model), images, tmp_path / f"{began}-whole",
                             options=INLINE, runtime=began)  # fmt: skip
        out = tmp_path / began
        embed_images(Embedder.load(model), images, out, options=INLINE, runtime=began)
        (out / "shard-00001.npy").unlink()  # as a call that was killed
        record = json.loads((out / "features.json").read_text())
        (out / "features.json").write_text(json.dumps(record | {"complete": False}))
        again = embed_images(Embedder.load(model), images, out, options=INLINE, runtime=other)
        assert again.info["key"]["runtime"] == began
        assert np.array_equal(np.asarray(whole), np.asarray(again))  # bit for bit


def test_what_began_with_a_graph_goes_on_without_one(model, shapes, tmp_path, monkeypatch):
    images, out, told = load_images(shapes), tmp_path / "features", []
    whole = np.array(
        embed_images(Embedder.load(model), images, out, options=INLINE, runtime="onnx")
    )
    (out / "shard-00000.npy").unlink()
    shutil.rmtree(model / "onnx")
    monkeypatch.setattr("resight.models.export.graph.write_graph", _refuses)
    found = embed_images(
        Embedder.load(model), images, out, options=INLINE, runtime="auto", tell=told.append
    )
    assert 0 < apart(whole, found) < 1e-5
    assert told == ["begun by onnx, goes on by torch: no graph today"]


def _refuses(*given):
    raise UserError("no graph today")


def test_bad_images_are_bad_for_both(model, shapes, tmp_path):
    images = load_images(shapes).rows(range(5))
    bad = tmp_path / "set"
    for number, path in enumerate(images.full_paths()):
        (bad / "a").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, bad / "a" / f"{number}.png")
    (bad / "a" / "2.png").write_bytes(b"no picture")
    found = [
        embed_images(Embedder.load(model), load_images(bad), options=INLINE, runtime=runtime)
        for runtime in ("torch", "onnx")
    ]
    assert [f.valid.tolist() for f in found] == [[True, True, False, True, True]] * 2
    assert found[0].info["skipped"] == found[1].info["skipped"]
    with pytest.raises(UserError, match="strict"):
        strict = EmbedOptions(workers=2, strict=True)
        embed_images(Embedder.load(model), load_images(bad), options=strict, runtime="onnx")


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_pictures_read_by_threads_are_those_of_the_loader(shapes, threads):
    images = load_images(shapes)
    for resize, interpolation in (("stretch", "bilinear"), ("crop", "bicubic")):
        prepare = Preprocess(size=(24, 36), resize=resize, interpolation=interpolation)
        loaded, pixels = Pictures(images, prepare), Pixels(images, prepare, lambda path, *_: path)
        batches = [range(0, 13), range(20, 21), range(13, 20)]
        for rows, batch in zip(batches, pixels.batches(batches, threads), strict=True):
            assert batch.rows.tolist() == list(rows) and batch.images.dtype == np.uint8
            assert batch.aside == {row: str(images.full_paths()[row]) for row in rows}
            for row, picture in zip(rows, batch.images, strict=True):
                import torch

                tensor = prepare.normalise(torch.from_numpy(picture.copy()).permute(2, 0, 1))
                assert torch.equal(loaded[row, 0][1], tensor)  # to the bit


# The graph that is kept -------------------------------------------------------------------


def test_a_graph_is_made_once(model, shapes, monkeypatch):
    monkeypatch.setattr("resight.models.export.graph.write_graph", _refuses)
    assert isinstance(choose.for_use(Embedder.load(model), "onnx"), OnnxEmbedder)
    found = choose.saved_graph(model)
    images = load_images(shapes).rows(range(4))
    wanted = Embedder.load(model).embed(images.full_paths())
    assert np.allclose(found.embed(images.full_paths()), wanted, atol=1e-5)
    assert found.fingerprint() == Embedder.load(model).fingerprint()
    assert (found.dim, found.preprocess) == (wanted.shape[1], Embedder.load(model).preprocess)


@pytest.mark.parametrize("harm", ["graph", "record", "version", "other embedder", "half written"])
def test_a_graph_that_is_not_the_right_one_is_not_used(model, harm, monkeypatch):
    (graph,), (record,) = (list((model / "onnx").glob(end)) for end in ("*.onnx", "*.json"))
    content = json.loads(record.read_text())
    if harm == "graph":
        data = bytearray(graph.read_bytes())
        data[len(data) // 2] ^= 1
        graph.write_bytes(data)
    elif harm == "record":
        record.write_text(record.read_text()[:-20])
    elif harm == "version":
        record.write_text(json.dumps(content | {"versions": content["versions"] | {"torch": "1"}}))
    elif harm == "other embedder":
        record.write_text(json.dumps(content | {"fingerprint": "0" * 64}))
    else:
        record.unlink()
    assert choose.saved_graph(model) is None
    assert isinstance(choose.for_use(Embedder.load(model), "onnx"), OnnxEmbedder)  # made anew
    assert choose.saved_graph(model) is not None


def test_a_changed_embedder_has_another_graph(model, embedder):
    import copy

    import torch

    other = copy.deepcopy(embedder)
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    other.save(model)
    assert choose.saved_graph(model) is None
    content = json.loads((model / "embedder.json").read_text())
    content["config"]["preprocess"]["size"] = [40, 40]  # by hand
    content["fingerprint"] = embedder.fingerprint()
    (model / "embedder.json").write_text(json.dumps(content))
    assert choose.saved_graph(model) is None


def test_where_the_folder_is_not_ours_the_users_cache_serves(embedder, tmp_path, own_cache):
    folder = embedder.save(tmp_path / "models--me--shop" / "snapshots" / "1")
    choose.for_use(Embedder.load(folder), "onnx")
    assert not (folder / "onnx").exists() and len(list(own_cache.rglob("*.onnx"))) == 1
    assert choose.saved_graph(folder) is not None
    shelf = embedder.save(tmp_path / "shelf")
    (shelf / "onnx").write_text("a file, where a folder can't be made")
    assert choose.saved_graph(shelf) is not None  # the same embedder
    shutil.rmtree(own_cache / "onnx")
    choose.for_use(Embedder.load(shelf), "onnx")
    assert len(list(own_cache.rglob("*.onnx"))) == 1


def test_features_carry_the_graph_along(model, shapes, tmp_path):
    images = load_images(shapes).rows(range(4))
    embed_images(Embedder.load(model), images, tmp_path / "f", options=INLINE, runtime="onnx")
    assert choose.saved_graph(tmp_path / "f" / "embedder") is not None
    assert Features.load(tmp_path / "f").info["key"]["runtime"] == "onnx"


def test_no_graph_is_no_harm(embedder, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("resight.models.export.graph.write_graph", _refuses)
    monkeypatch.setattr(choose, "WORTH", 1)
    folder, told = embedder.save(tmp_path / "model"), []
    images = load_images(shapes).rows(range(3))
    found = embed_images(Embedder.load(folder), images, options=INLINE, tell=told.append)
    assert found.info["runtime"] == "torch" and told == ["no graph today; embedded by torch"]
    with pytest.raises(UserError, match="no graph today"):
        embed_images(Embedder.load(folder), images, options=INLINE, runtime="onnx")
    monkeypatch.undo()  # that there is none is remembered
    monkeypatch.setenv("RESIGHT_RUNTIME", "auto")
    assert choose.saved_graph(folder) is None
    assert choose.for_use(Embedder.load(folder)).runtime == "torch"


def test_a_graph_that_differs_is_none(embedder, tmp_path, monkeypatch):
    from resight.models.export import graph

    whole = graph.write_graph

    def other(model, form):
        import copy

        import torch

        wrong = copy.deepcopy(model)
        with torch.no_grad():
            next(wrong.parameters())[:2] *= 1.01
        return whole(wrong, form)

    monkeypatch.setattr(graph, "write_graph", other)
    with pytest.raises(UserError, match="its ONNX graph differs from torch by"):
        choose.for_use(Embedder.load(embedder.save(tmp_path / "model")), "onnx")


def test_auto_weighs(model, embedder, monkeypatch, tmp_path):
    assert choose.for_use(Embedder.load(model)).runtime == "onnx"
    bare = Embedder.load(embedder.save(tmp_path / "bare"))
    assert choose.for_use(bare, images=10).runtime == "torch"  # nothing to gain
    assert not (tmp_path / "bare" / "onnx").exists()
    (record,) = (model / "onnx").glob("*.json")
    content = json.loads(record.read_text())
    assert content["parity"]["largest"] < choose.BOUND
    for seconds, few, many in (((1.0, 2.0), "onnx", "torch"), ((2.0, 1.0), "onnx", "onnx")):
        content["seconds"] = dict(zip(("torch", "onnx"), seconds, strict=True))
        record.write_text(json.dumps(content))
        for images, wanted in ((10, few), (5000, many)):
            assert choose.for_use(Embedder.load(model), images=images).runtime == wanted
            assert (choose.saved_graph(model, images=images) is not None) == (wanted == "onnx")
    monkeypatch.setattr(choose, "on_cpu", lambda device: False)  # a GPU
    assert choose.saved_graph(model) is None


def test_what_is_asked_for_is_checked(monkeypatch):
    assert choose.wanted(None) == "auto"
    monkeypatch.setenv("RESIGHT_RUNTIME", "torch")
    assert (choose.wanted(None), choose.wanted("onnx")) == ("torch", "onnx")
    with pytest.raises(UserError, match="--runtime tensorflow: choose auto, torch or onnx"):
        choose.wanted("tensorflow")


def test_the_cache_lies_where_it_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv("RESIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.user_folder() == tmp_path / "resight" / "onnx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.user_folder() == Path.home() / ".cache" / "resight" / "onnx"
