"""Image sets at addresses through every verb that reads images: as the same files would be."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import polars as pl
import pytest
from tests.command import TINY, resight
from tests.web import SECRET, Web, serving

from resight.data import stores
from resight.data.doctor import examine
from resight.data.sources import load_images
from resight.errors import UserError
from resight.features.store import Features
from resight.search.gallery import Gallery

pytest.importorskip("fsspec")


@pytest.fixture(scope="module")
def local(shapes: Path, tmp_path_factory) -> Path:
    """A table of 24 pictures of eight objects, and the pictures beside it."""
    folder = tmp_path_factory.mktemp("local")
    images = load_images(shapes)
    table = images.table.filter(pl.int_range(pl.len()).over("object") < 3).head(24)
    for path in table["path"]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes((images.root / path).read_bytes())
    table.select("path", "object").write_csv(folder / "set.csv")
    return folder


@pytest.fixture(scope="module")
def model(embedder, tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("model")
    embedder.save(folder)
    return [str(folder), "--runtime", "torch"]


@pytest.fixture(scope="module")
def web(local: Path) -> Iterator[Web]:
    pytest.importorskip("aiohttp")
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        quick = stores.Limits(connect=1, silent=1, total=2, tries=2, pause=0.01)
        patch.setattr(stores, "LIMITS", quick)
        for file in local.rglob("*.*"):
            server.files[f"/p/{file.relative_to(local)}"] = file.read_bytes()
            if file.suffix != ".csv":
                server.ways[f"/p/{file.relative_to(local)}"] = "signed"
                server.files[f"/open/{file.relative_to(local)}"] = file.read_bytes()
        server.files["/open/set.csv"] = (local / "set.csv").read_bytes()
        yield server


@pytest.fixture
def signed(local: Path, web: Web, tmp_path: Path) -> Path:
    """A table of this machine with signed addresses; one leads nowhere."""
    table = pl.read_csv(local / "set.csv")
    paths = [f"{web.address}/p/{p}?X-Amz-Signature={SECRET}" for p in table["path"]]
    gone = f"{web.address}/p/gone.jpg?X-Amz-Signature={SECRET}"
    table = table.with_columns(pl.Series("path", paths))
    table = pl.concat([table, pl.DataFrame({"path": [gone], "object": ["x"]})])
    table.write_csv(tmp_path / "signed.csv")
    return tmp_path / "signed.csv"


def no_secret_in(folder: Path, *texts: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file() and file.name != "signed.csv":
            content = file.read_bytes()
            assert SECRET.encode() not in content, file
            if file.suffix == ".parquet":
                found = pl.read_parquet(file)
                assert SECRET not in str(found.to_dicts()), file
    for text in texts:
        assert SECRET not in text and "Traceback" not in text


def test_a_table_on_the_web_is_read_as_one_here(local, web):
    here, there = load_images(local / "set.csv"), load_images(f"{web.address}/open/set.csv")
    assert there.table["object"].equals(here.table["object"]) and there.remote and not here.remote
    assert unquote(there.table["path"][0]) == f"{web.address}/open/{here.table['path'][0]}"
    assert there.fingerprint() == load_images(f"{web.address}/open/set.csv").fingerprint()
    assert there.fingerprint() != here.fingerprint() != here.rows([1, 0]).fingerprint()
    again = load_images(there.write(local.parent / "again.parquet"))
    assert again.fingerprint() == there.fingerprint() and again.full_paths() == there.full_paths()


def test_signing_anew_changes_nothing(signed, web):
    web.ways = dict.fromkeys(web.ways, "signed")
    one = load_images(signed)
    text = signed.read_text().replace("?X-Amz", "?X-Amz-Date=7&X-Amz")
    signed.write_text(text)
    two = load_images(signed)
    assert one.fingerprint() == two.fingerprint() and one.opens != two.opens
    assert one.rows([1]).full_paths()[0].whole.endswith(SECRET)
    assert SECRET not in repr(one) and SECRET not in one.table["path"].to_list()[0]


def test_embedding_is_that_of_the_files(model, local, web, signed, tmp_path, capfd):
    assert resight("embed", *model, str(local / "set.csv"), "--out", str(tmp_path / "here")) == 0
    capfd.readouterr()
    assert resight("embed", *model, str(signed), "--out", str(tmp_path / "there")) == 0
    out, err = capfd.readouterr()
    assert f"skipped {web.address}/p/gone.jpg: no such object" in err
    here, there = Features.load(tmp_path / "here"), Features.load(tmp_path / "there", check=True)
    assert np.array_equal(np.asarray(here), np.asarray(there)[:24])
    assert there.valid.tolist() == [True] * 24 + [False]
    assert resight("embed", *model, str(signed), "--out", str(tmp_path / "there")) == 0  # again
    onnx = [*model[:-1], "onnx"]
    assert resight("embed", *onnx, str(signed), "--out", str(tmp_path / "graph")) == 0
    found = np.asarray(Features.load(tmp_path / "graph"))[:24]
    np.testing.assert_allclose(found, np.asarray(here), rtol=1e-3, atol=1e-3)
    strict = ["embed", *model, str(signed), "--out", str(tmp_path / "strict"), "--strict"]
    out, err = capfd.readouterr()
    assert resight(*strict) == 2
    out, err = capfd.readouterr()
    assert f"{web.address}/p/gone.jpg: no such object (--strict stops" in err
    no_secret_in(tmp_path, out, err)


def test_workers_read_them_too(model, local, web, signed, tmp_path):
    words = ["embed", *model, str(signed), "--out", str(tmp_path / "f"), "--workers", "2"]
    assert resight(*words) == 0
    assert Features.load(tmp_path / "f").valid.sum() == 24
    no_secret_in(tmp_path)


def test_the_doctor(local, web, signed, capfd):
    here, there = examine(load_images(local / "set.csv")), examine(load_images(signed))
    codes = [finding.code for finding in there.findings if finding.severity == "error"]
    assert codes == ["missing"]
    assert there.sizes == here.sizes and there.formats == here.formats
    same = [f.code for f in here.findings if "duplicate" in f.code]
    assert same == [f.code for f in there.findings if "duplicate" in f.code]
    assert resight("data", "check", str(signed), "--json") == 1
    out, err = capfd.readouterr()
    assert "no such object" in out and SECRET not in out + err
    sheet = str(signed.parent / "sheet.png")
    assert resight("data", "check", str(signed), "--sheet", sheet) == 1
    no_secret_in(signed.parent, *capfd.readouterr())


def test_what_cannot_be_had_is_named(web, tmp_path):
    web.ways["/p/stopped.jpg"] = "failing"
    (tmp_path / "t.csv").write_text(
        f"path\n{web.address}/open/stopped.jpg\n{web.address}/p/stopped.jpg\nhttp://127.0.0.1:9/a\n"
    )
    with pytest.raises(UserError, match=r"none of its images can be read, of 3 .*no such object"):
        load_images(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"none.csv: no such object"):
        load_images(f"{web.address}/none.csv?token={SECRET}")
    with pytest.raises(UserError, match=r"only a table can be an image set"):
        load_images(f"{web.address}/p/")
    web.files["/broken.csv"], web.files["/broken.parquet"] = b"\xff\xfe\x00", b"PAR1"
    with pytest.raises(UserError, match=r"/broken.csv: not UTF-16 text"):
        load_images(f"{web.address}/broken.csv")
    with pytest.raises(UserError, match=r"/broken.parquet: can't be read as parquet"):
        load_images(f"{web.address}/broken.parquet")


def test_wrong_rows_are_named_by_line(web, tmp_path):
    one = f"{web.address}/p/a.jpg"
    (tmp_path / "t.csv").write_text(
        f"path\nssh://h/a.jpg\n{one}?token=1\n{one}?token=2\n{one}?id=1\n{one}?id=2\n"
    )
    with pytest.raises(UserError) as caught:
        load_images(tmp_path / "t.csv")
    lines = str(caught.value).splitlines()
    assert "line 2: ssh://h/a.jpg: an address of this kind is not read" in lines[0]
    assert any("line 4" in line and "another query or user" in line for line in lines)
    assert not any("line 5" in line or "line 6" in line for line in lines)


def test_a_gallery_of_addresses(model, local, web, signed, tmp_path, capfd):
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    assert resight("index", *model, str(local / "set.csv"), "--out", here) == 0
    assert resight("index", *model, str(signed), "--out", there) == 0
    capfd.readouterr()
    # Known addresses are not asked for again; a removed one stays out.
    web.asked.clear()
    first = f"{web.address}/p/{load_images(local / 'set.csv').table['path'][0]}"
    assert resight("gallery", "remove", there, first) == 0
    assert resight("gallery", "add", there, str(signed), "--json") == 0
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (told["unchanged"], told["left_out"], told["added"]) == (23, 1, 0)
    assert resight("gallery", "add", there, str(signed), "--again", "--json") == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["added"] == 1
    # The same photo, by file and by address, finds the same.
    query = load_images(local / "set.csv").full_paths()[5]
    address = f"{web.address}/p/{query.relative_to(local)}?X-Amz-Signature={SECRET}"
    for asked in (str(query), address):
        assert resight("search", there, asked, "--json") == 0
        out, err = capfd.readouterr()
        assert SECRET not in out + err
        (answer,) = json.loads(out)["queries"]
        if asked == address:  # never its own file
            assert answer["path"] == address.partition("?")[0]
            assert answer["path"] not in [hit["path"] for hit in answer["hits"]]
    assert resight("gallery", "check", there) in (0, 1)
    out, err = capfd.readouterr()
    assert "no longer there" not in out + err
    with Gallery.open(here) as a, Gallery.open(there) as b:
        contents = [{row.content for row in g.engine.rows(g.engine.ids())} for g in (a, b)]
        assert contents[0] == contents[1] and len(contents[0]) == 24
        sizes = [{(row.bytes, row.width) for row in g.engine.rows(g.engine.ids())} for g in (a, b)]
        assert sizes[0] == sizes[1]
        hits = b.search(address, k=3)[0]
        assert all(hit.path.startswith(web.address) for hit in hits)
    assert resight("search", there, str(query), "--sheet", str(tmp_path / "s.png")) == 0
    no_secret_in(tmp_path, *capfd.readouterr())


def test_sync_takes_away_below_the_addresses_folder(model, local, web, tmp_path, capfd):
    table, gallery = str(tmp_path / "t.csv"), str(tmp_path / "g")
    paths = load_images(f"{web.address}/open/set.csv").table["path"].to_list()
    Path(table).write_text("path\n" + "\n".join(paths) + "\n")
    assert resight("index", *model, table, "--out", gallery) == 0
    Path(table).write_text("path\n" + "\n".join(paths[:-2]) + "\n")
    capfd.readouterr()
    assert resight("gallery", "add", gallery, table, "--sync", "--json") == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["removed"] == 2
    Path(table).write_text(f"path\n{paths[0]}\nmemory://x/a.jpg\n")
    assert resight("gallery", "add", gallery, table, "--sync") == 2
    assert "on several hosts" in capfd.readouterr().err
    Path(table).write_text(f"path\n{paths[0]}\n{local / 'set.csv'}\n")
    assert resight("gallery", "add", gallery, table) == 2
    assert "files and addresses together" in capfd.readouterr().err


def test_copies_among_addresses_are_left_out(model, local, web, tmp_path, capfd):
    paths = load_images(f"{web.address}/open/set.csv").table["path"].to_list()[:4]
    copy = paths[0].replace("/open/", "/open/copy/")
    old, new = (unquote(path).removeprefix(web.address) for path in (paths[0], copy))
    web.files[new] = web.files[old]
    (tmp_path / "t.csv").write_text("path\n" + "\n".join([*paths, copy]) + "\n")
    assert resight("index", *model, str(tmp_path / "t.csv"), "--out", str(tmp_path / "g")) == 0
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.engine.counts()[0] == 4


def test_training_and_evaluating(local, web, signed, tmp_path, capfd):
    run = str(tmp_path / "run")
    words = ["train", str(signed), "--out", run, "--recipe", "smooth_ap", "--backbone", TINY]
    words += ["--weights", "none", "--size", "32", "--epochs", "1"]
    words += ["--set", "ids=4", "--set", "images=2"]
    status = resight(*words)
    out, err = capfd.readouterr()
    assert status == 0, err
    evaluation = str(tmp_path / "evaluation")
    assert resight("evaluate", run, str(signed), "--out", evaluation) == 0
    assert (tmp_path / "evaluation" / "report.html").is_file()
    record: dict[str, Any] = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["source"] == str(signed)
    no_secret_in(tmp_path, out, err, *capfd.readouterr())


def test_a_table_in_a_store(local):
    import fsspec

    files = fsspec.filesystem("memory")
    for file in local.rglob("*.*"):
        files.pipe_file(f"/shop/{file.relative_to(local)}", file.read_bytes())
    content = io.BytesIO()
    pl.read_csv(local / "set.csv").write_parquet(content)
    files.pipe_file("/shop/set.parquet", content.getvalue())
    here = load_images(local / "set.csv")
    for name in ("set.csv", "set.parquet"):
        there = load_images(f"memory://shop/{name}")
        assert there.table["object"].equals(here.table["object"])
        assert examine(there).formats == examine(here).formats
        assert not examine(there).count("error")
