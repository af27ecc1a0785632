"""Reading at addresses: a real server, honest, slow, endless or broken; a store in memory."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest
from tests.pictures import encoded, picture
from tests.web import SECRET, serving

from resight.data import stores
from resight.data.addresses import Address
from resight.data.decode import BadImage, decode, shape_of
from resight.data.stores import NotRead, fetch, need, reachable
from resight.errors import UserError

fsspec = pytest.importorskip("fsspec")
QUICK = stores.Limits(connect=1, silent=0.5, total=1.0, tries=3, pause=0.01)


@pytest.fixture(scope="module")
def web():
    pytest.importorskip("aiohttp")
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(stores, "LIMITS", QUICK)


def put(web, path: str, content: bytes = b"x" * 1000, way: str = "") -> Address:
    web.files[path], web.ways[path] = content, way
    return Address(web.address + path)


def reason(address: Address, **how) -> str:
    with pytest.raises(NotRead) as caught:
        fetch(address, **how)
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("way", ["", "chunked"])
def test_all_bytes_come(web, way):
    content = os.urandom(700_000)
    address = put(web, f"/whole{way}", content, way)
    assert fetch(address) == content
    assert web.asked[f"/whole{way}"] == 1  # nothing is asked before
    assert fetch(address, 700_000) == content
    assert reason(address, most=699_999) == "more than 1 MB"


def test_an_empty_object(web):
    assert fetch(put(web, "/empty", b"")) == b""


def test_an_endless_answer_is_cut(web):
    before = web.sent
    assert reason(put(web, "/endless", way="endless"), most=2**20) == "more than 1 MB"
    time.sleep(0.2)
    assert web.sent - before < 32 * 2**20  # what buffers hold, not all of it


def test_missing_is_said_at_once(web):
    assert reason(Address(web.address + "/none")) == "no such object"
    assert web.asked["/none"] == 1


def test_a_busy_server_is_asked_again(web):
    assert fetch(put(web, "/busy", b"yes", "busy")) == b"yes" and web.asked["/busy"] == 3
    assert reason(put(web, "/failing", way="failing")) == "the server answers 503"
    assert web.asked["/failing"] == 3


@pytest.mark.parametrize("way", ["silent", "drip"])
def test_a_slow_one_is_given_up(web, way):
    start = time.monotonic()
    assert reason(put(web, f"/{way}", way=way)) == "no answer in time"
    assert time.monotonic() - start < 8 and web.asked[f"/{way}"] == 3


def test_a_broken_answer_is_no_picture(web):
    address = put(web, "/cut.jpg", encoded(picture(1, (400, 300)), "JPEG"), "cut")
    assert reason(address) == "the connection broke off" and web.asked["/cut.jpg"] == 3


def test_redirects_are_followed(web):
    address = put(web, "/away", way="away")
    web.files["/moved/away"] = b"here"
    assert fetch(address) == b"here"


def test_a_signed_address_opens_and_is_not_told(web):
    put(web, "/signed.jpg", encoded(picture(1), "JPEG"), "signed")
    whole = f"{web.address}/signed.jpg?X-Amz-Date=2&X-Amz-Signature={SECRET}"
    assert decode(Address(whole)).size == picture(1).size
    wrong = Address(whole.replace("Signature=", "Signature=a%2Fb"))
    with pytest.raises(BadImage, match=r"signed.jpg: access denied \(403\)") as caught:
        decode(wrong)
    assert SECRET not in str(caught.value) and "?" not in caught.value.path
    assert type(caught.value.path) is str  # what opens it goes nowhere with it


def test_no_host(web):
    assert reason(Address("http://127.0.0.1:9/x.jpg")) == "no connection to its host"
    assert "can" in reason(Address("http://[broken/x.jpg"))


def test_decode_and_shape(web):
    turned = put(web, "/t.jpg", encoded(picture(2, (60, 40)), "JPEG", turn=6))
    assert shape_of(turned) == (60, 40) and decode(turned).size == (40, 60)
    with pytest.raises(BadImage, match=r"/page.jpg: not an image of a known format"):
        decode(put(web, "/page.jpg", b"<html></html>"))
    with pytest.raises(BadImage, match=r"/bomb.png: .* pixels"):
        decode(put(web, "/bomb.png", encoded(picture(3, (50, 50)), "PNG")), max_pixels=100)


def test_texts_are_not_addresses(web):
    """What others send in is a file's name, and nothing else: it is never asked for."""
    address = put(web, "/asked.jpg", encoded(picture(1), "JPEG"))
    with pytest.raises(BadImage, match="no such file"):
        decode("".join(address))
    assert not web.asked["/asked.jpg"]


def test_many_at_once_and_after_a_fork(web):
    addresses = [put(web, f"/many{n}", bytes([n])) for n in range(40)]
    assert reachable([*addresses, Address(web.address + "/none")]) == [""] * 40 + ["no such object"]
    child = os.fork()
    if not child:  # as a loader's worker
        good = fetch(addresses[7]) == bytes([7])
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_store_in_memory():
    files = fsspec.filesystem("memory")
    files.pipe_file("/box/a b#1.bin", b"12345")
    address = Address("memory://box/a b#1.bin")
    assert fetch(address) == b"12345" and fetch(address, 5) == b"12345"
    assert reason(address, most=4) == "more than 0 MB"
    assert reason(Address("memory://box/none")) == "no such object"


def test_errors_of_a_store_are_not_passed_on(monkeypatch):
    class Broken:
        def cat_file(self, *_, **__):
            raise dataclasses.FrozenInstanceError(f"token={SECRET}")

    monkeypatch.setattr(stores, "_files", lambda *_: Broken())
    assert reason(Address("memory://x")) == "can't be read (FrozenInstanceError)"


def test_a_missing_package_is_named(monkeypatch):
    find = stores.importlib.util.find_spec
    gone = {"s3fs", "gcsfs", "aiohttp"}
    monkeypatch.setattr(
        stores.importlib.util, "find_spec", lambda name: None if name in gone else find(name)
    )
    for address, words in (
        ("s3://b/x.csv", "needs s3fs, which is missing: pip install s3fs"),
        ("gs://b/x.csv", "needs gcsfs, which is missing: pip install gcsfs"),
        ("https://h/x.csv?sig=1", r"pip install 'resight\[stores\]'"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            need([Address("memory://x"), Address(address)])
        assert "?" not in str(caught.value)


def test_files_need_no_fsspec(tmp_path):
    import subprocess
    import sys

    file = tmp_path / "a.png"
    picture(1).save(file)
    (tmp_path / "t.csv").write_text("path\na.png\n")
    code = (
        "import sys; from resight.data.sources import load_images; "
        "from resight.data.decode import decode; from resight.data.doctor import examine; "
        f"images = load_images({str(tmp_path / 't.csv')!r}); examine(images); "
        "decode(images.full_paths()[0]); images.fingerprint(); "
        "sys.exit(bool({'fsspec', 'aiohttp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_s3(monkeypatch):
    """Against a server that answers as S3 does, where the packages are there."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = server.ThreadedMotoServer(port=0)
    store.start()
    try:
        host, port = store.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        import s3fs

        files = s3fs.S3FileSystem()
        files.mkdir("photos")
        files.pipe_file("photos/a#b/1 ä.jpg", encoded(picture(1), "JPEG"))
        files.pipe_file("photos/empty", b"")
        assert decode(Address("s3://photos/a#b/1 ä.jpg")).size == picture(1).size
        assert fetch(Address("s3://photos/empty")) == b""
        assert reason(Address("s3://photos/a#b/1 ä.jpg"), most=9) == "more than 0 MB"
        assert reason(Address("s3://photos/none")) == "no such object"
        assert reason(Address("s3://nobucket/none")) == "no such object"
    finally:
        store.stop()


def test_paths_of_files_stay_paths(tmp_path):
    with pytest.raises(BadImage, match="no such file"):
        decode(Path("http:/127.0.0.1/x.jpg"))
