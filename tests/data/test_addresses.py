"""Addresses as text: what may be seen of them, and what they mean in a table."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.data.addresses import (
    Address,
    absolute,
    is_address,
    joined,
    located,
    place,
    shown,
    to_open,
)
from resight.errors import UserError


@pytest.mark.parametrize(
    ("whole", "seen"),
    [
        ("https://h/a.jpg?id=5&w=200", "https://h/a.jpg?id=5&w=200"),
        ("https://h/a.jpg?X-Amz-Date=1&X-Amz-Signature=ab", "https://h/a.jpg"),
        ("https://h/a.jpg?Expires=1&Signature=a%2Fb&Key-Pair-Id=K", "https://h/a.jpg"),
        ("https://h/a.jpg?sv=2024&sp=r&sig=abc", "https://h/a.jpg"),
        ("https://h/a.jpg?id=5&access_token=x", "https://h/a.jpg"),
        ("https://h/a.jpg?apikey=x", "https://h/a.jpg"),
        ("https://h/a.jpg?t=" + "x" * 65, "https://h/a.jpg"),
        ("https://h/a.jpg?justatoken", "https://h/a.jpg"),
        ("https://me:pass@h:8/a.jpg", "https://h:8/a.jpg"),
        ("https://me:p@ss@h:8/a@b.jpg", "https://h:8/a@b.jpg"),
        ("s3://key:secret@bucket/a b.jpg", "s3://bucket/a b.jpg"),
        ("https://h/a.jpg#access_token=x", "https://h/a.jpg"),
        ("s3://bucket/a#1.jpg", "s3://bucket/a#1.jpg"),
        ("photos/a.jpg?sig=x", "photos/a.jpg?sig=x"),
    ],
)
def test_what_opens_an_address_is_not_seen(whole, seen):
    assert shown(whole) == seen and shown(seen) == seen
    address = Address(whole)
    for text in (str(address), f"{address}", repr(address), address.name):
        assert "secret" not in text and (whole == seen or text.strip("'") in seen)
    if is_address(whole):
        assert address.whole == whole and str(address).whole == whole


def test_it_crosses_processes_whole():
    address = Address("https://h/a.jpg?sig=x")
    again = pickle.loads(pickle.dumps(address))
    assert (again, again.whole, type(again)) == ("https://h/a.jpg", address.whole, Address)


def test_it_stands_where_a_path_stands():
    address = Address("https://h/x/a.b.JPG?sig=1")
    assert (address.name, address.suffix, address.stem) == ("a.b.JPG", ".JPG", "a.b")
    assert address.absolute() is address and absolute(address) is address
    assert address.exists() and address.is_file() and not address.is_dir()
    assert absolute("a.jpg") == str(Path.cwd() / "a.jpg")


def test_places():
    assert place("a/b.csv") == Path("a/b.csv") and place(Path("x")) == Path("x")
    assert isinstance(place("S3://bucket/x"), Address)
    assert place("file:///a/b%20c.jpg") == Path("/a/b c.jpg")
    assert place("file://localhost/a.jpg") == Path("/a.jpg")
    for text in ("ssh://h/x", "zip://a::https://h/x.zip", "github://o:r@/x"):
        with pytest.raises(UserError, match="not read; it can be http"):
            place(text)
    assert to_open("https://h/a").whole == "https://h/a" and to_open("a.jpg") == "a.jpg"
    assert to_open(b"x") == b"x"


@pytest.mark.parametrize(
    ("table", "path", "whole"),
    [
        ("https://h/x/t.csv", "a/1.jpg", "https://h/x/a/1.jpg"),
        ("https://h/x/t.csv?sig=1", "1.jpg", "https://h/x/1.jpg"),
        ("https://u:p@h/x/t.csv", "1.jpg", "https://u:p@h/x/1.jpg"),
        ("https://h/x/t.csv", "../1.jpg", "https://h/1.jpg"),
        ("https://h/x/t.csv", "../../../../1.jpg", "https://h/1.jpg"),
        ("https://h/x/t.csv", "/y/1.jpg", "https://h/y/1.jpg"),
        ("https://h/t.csv", "schöne Vase#2.jpg", "https://h/sch%C3%B6ne%20Vase%232.jpg"),
        ("https://h/t.csv", "a%20b.jpg", "https://h/a%20b.jpg"),
        ("https://h/t.csv", "image?id=5", "https://h/image?id=5"),
        ("s3://bucket/x/t.csv", "schöne Vase#2.jpg", "s3://bucket/x/schöne Vase#2.jpg"),
        ("s3://bucket/t.csv", "../1.jpg", "s3://bucket/1.jpg"),
        ("memory://d/t.csv", "1.jpg", "memory://d/1.jpg"),
    ],
)
def test_a_tables_paths_are_relative_to_it(table, path, whole):
    assert joined(Address(table), path) == whole


def test_located():
    assert located(Path("/r"), "a.jpg", {}) == Path("/r/a.jpg")
    found = located(Path("/r"), "https://h/a.jpg", {"https://h/a.jpg": "https://h/a.jpg?sig=1"})
    assert isinstance(found, Address) and found.whole == "https://h/a.jpg?sig=1"


@given(
    st.sampled_from(["X-Goog-Signature", "sig", "token", "Signature", "x-amz-security-token"]),
    st.text("abcdef0123456789", min_size=8, max_size=80),
    st.sampled_from(["", "id=7&", "a&"]),
)
def test_no_signature_is_ever_seen(name, secret, before):
    for whole in (f"https://h/i.jpg?{before}{name}={secret}", f"https://u:{secret}@h/i.jpg"):
        assert secret not in shown(whole).partition("//h")[2]
        assert secret not in f"{Address(whole)!r}"
