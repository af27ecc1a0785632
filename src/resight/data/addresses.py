"""Addresses: paths that lead to an object store or the web instead of a disk.

What is seen of an address, its text, is what may stand in messages, records and reports: without
a user and password, and without the query of a signed one. What opens it stands beside, in
memory only.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resight.errors import UserError

# What each kind is read with, beside fsspec; "" for nothing.
PROTOCOLS = {
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    "memory": "",
}
_BEGINS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_USER = re.compile(r"(://)[^/?#]*@")
# Names of a query's parameters that sign or let in, as stores and sites have them.
_SIGNS = (
    r"x-(amz|goog|oss|obs|cos|ms)-.*|q-.*|sig(n|nature)?|(aws|oss|google)?access_?(key_?)?id"
    r"|key-?pair-?id|policy|expir(es|y|ation)|.*key|hmac|hash|md5|jwt|sas|auth(orization|[-_].*)?"
    r"|pass|pwd|user(name)?|.*(token|secret|signature|credential|session|passw(or)?d|hdn).*"
)
_LONG = 64  # characters of a value: more than a name has


def is_address(text: str) -> bool:
    """Whether a path is an address: begins with a protocol and ://"""
    return _BEGINS.match(text) is not None


def shown(text: str) -> str:
    """An address as it may be seen: without user and password, and the query of a signed one.

    Any other text comes back as it is.
    """
    if not is_address(text):
        return text
    text = _USER.sub(r"\1", text, count=1)
    if text.lower().startswith("http"):
        text = text.partition("#")[0]  # never sent
    bare, _, query = text.partition("?")
    if not query:
        return bare
    from urllib.parse import parse_qsl

    pairs = parse_qsl(query, keep_blank_values=True)
    signed = any(_signs(name) or len(value) > _LONG for name, value in pairs)
    return bare if signed or not pairs else text


def _signs(name: str) -> bool:
    return re.fullmatch(_SIGNS, name, re.IGNORECASE) is not None


class Address(str):
    """An address, to stand where a path stands: its text is what may be seen, `whole` opens it.

    What it leads to is taken to be a file that is there; reading it tells.
    """

    whole: str

    def __new__(cls, whole: str) -> Address:
        self = super().__new__(cls, shown(whole))
        self.whole = whole
        return self

    def __str__(self) -> str:
        return self  # str() keeps what opens it

    @property
    def protocol(self) -> str:
        """What stands before ://, in small letters."""
        return self.partition("://")[0].lower()

    @property
    def name(self) -> str:
        """The last part, without a query."""
        return self.partition("?")[0].rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return posixpath.splitext(self.name)[1]

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return posixpath.splitext(self.name)[0]

    def absolute(self) -> Address:
        """Itself."""
        return self

    resolve = absolute

    def exists(self) -> bool:
        """True: reading it tells."""
        return True

    is_file = exists

    def is_dir(self) -> bool:
        """False: what lies at an address is not walked."""
        return False


Place = Path | Address


def place(text: str | Path) -> Place:
    """A path or an address, as a person gives it. Raises UserError for an unknown protocol."""
    if isinstance(text, Address | Path) or not is_address(text):
        return text if isinstance(text, Address | Path) else Path(text)
    if text.lower().startswith("file://"):
        from urllib.parse import unquote

        return Path(unquote(text[text.index("/", 7) :]) if "/" in text[7:] else "/")
    address = Address(text)
    check_protocol(address)
    return address


def check_protocol(address: Address) -> None:
    """Raise UserError for a protocol that is not read, and for chains of them."""
    if address.protocol not in PROTOCOLS or "::" in address.partition("?")[0]:
        kinds = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise UserError(f"{address}: an address of this kind is not read; it can be {kinds}")


def absolute(path: str | Path) -> str:
    """The absolute path, or the address as it is."""
    return path if isinstance(path, Address) else os.path.abspath(path)


def located(root: Path, path: str, opens: Mapping[str, str]) -> Place:
    """What a table's path means: an address (`opens`: what opens it, by its text), or a file."""
    if is_address(path):
        return Address(opens.get(path, path))
    return root / path


def to_open(path: Any) -> Any:
    """What a person names or we wrote down ourselves: an address in a text is taken for one.

    Nowhere else: what others send in is never opened.
    """
    return Address(path) if isinstance(path, str) and is_address(path) else path


def joined(table: Address, path: str) -> str:
    """The whole address of a path that stands in a table at an address, relative to that table."""
    protocol, _, rest = table.whole.partition("://")
    where, slash, below = rest.partition("?")[0].partition("/")
    folder = "" if path.startswith("/") else posixpath.dirname(slash + below)
    found = posixpath.normpath(f"{folder or '/'}/{path}").lstrip("/")
    if protocol.lower() in ("http", "https"):  # what can't stand there; what is quoted stays so
        from urllib.parse import quote

        found = quote(found, safe="/?=&%:@!$'()*+,;~[]")
    return f"{protocol}://{where}/{found}"
