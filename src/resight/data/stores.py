"""What lies at an address, read whole through fsspec: limits of size and time, and few tries.

What a store or a library says is not passed on: it may hold what opens the address.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from resight.data.addresses import PROTOCOLS, Address, check_protocol
from resight.errors import UserError

READERS = 16  # threads that wait for answers
IMAGE_BYTES, TABLE_BYTES = 2**27, 2**32
_BUSY = {408, 425, 429, 500, 502, 503, 504}  # answers that pass
_PART = 2**18
GONE = "no such object"


@dataclass(frozen=True)
class Limits:
    """Seconds: to connect, without a byte, in all; tries, and the pause after the first one."""

    connect: float = 10.0
    silent: float = 20.0
    total: float = 120.0
    tries: int = 3
    pause: float = 0.5


LIMITS = Limits()
TABLE = Limits(total=3600.0)


class NotRead(Exception):
    """What lies at an address can't be had. The message says why, in a few words."""

    def __init__(self, reason: str, passing: bool = False):
        super().__init__(reason)
        self.passing = passing  # another try may do


def need(addresses: Iterable[Address]) -> None:
    """Raise UserError where a package that these addresses are read with is missing."""
    first: dict[str, Address] = {}
    for address in addresses:
        first.setdefault(address.protocol, address)
    for protocol, address in first.items():
        check_protocol(address)
        for package in ("fsspec", PROTOCOLS[protocol]):
            if package and importlib.util.find_spec(package) is None:
                ours = package in ("fsspec", "aiohttp")
                how = "pip install 'resight[stores]'" if ours else f"pip install {package}"
                raise UserError(f"{address}: reading it needs {package}, which is missing: {how}")


def fetch(address: Address, most: int = IMAGE_BYTES, limits: Limits | None = None) -> bytes:
    """All bytes at an address. Raises NotRead: not there, not allowed, no answer, over `most`."""
    return _tried(address, most, limits or LIMITS, whole=True)


def reachable(addresses: list[Address]) -> list[str]:
    """Why each can't be had; "" where it can. Asked for at once, not read to the end."""

    def why(address: Address) -> str:
        try:
            _tried(address, 1, LIMITS, whole=False)
        except NotRead as reason:
            return str(reason)
        return ""

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(why, addresses))


def _tried(address: Address, most: int, limits: Limits, whole: bool) -> bytes:
    for number in range(limits.tries):
        try:
            content = _read(address, most, limits)
            if whole and len(content) > most:
                raise NotRead(f"more than {most / 2**20:,.0f} MB")
            return content
        except NotRead as reason:
            if not reason.passing or number + 1 == limits.tries:
                raise
        time.sleep(limits.pause * 4**number)
    raise AssertionError


def _read(address: Address, most: int, limits: Limits) -> bytes:
    """Up to `most` + 1 bytes."""
    try:
        files = _files(address, limits)
        if address.protocol in ("http", "https"):
            return _run(files, limits, _streamed, files, address.whole, most)
        if getattr(files, "async_impl", False):
            within = {"start": 0, "end": most + 1}
            path = files._strip_protocol(address.whole)
            content = _run(files, limits, files._cat_file, path, **within)
        else:
            content = files.cat_file(address.whole, start=0, end=most + 1)
        return bytes(content)
    except Exception as error:  # each store has errors of its own
        said = str(error)
        if "InvalidRange" in said or "range is not satisfiable" in said or " 416" in said:
            return b""  # no range of nothing
        raise _why(error) from None


def _run(files: Any, limits: Limits, work: Any, *given: Any, **named: Any) -> bytes:
    from fsspec.asyn import sync

    content: bytes = sync(files.loop, work, *given, timeout=limits.total + 5, **named)
    return content


async def _streamed(files: Any, address: str, most: int) -> bytes:
    """As it comes, and no more of it: a server need not know ranges, nor tell a true length."""
    session = await files.set_session()
    async with session.get(files.encode_url(address)) as answer:
        answer.raise_for_status()
        parts, size = [], 0
        while size <= most and (part := await answer.content.read(min(_PART, most + 1 - size))):
            parts.append(part)
            size += len(part)
    return b"".join(parts)


_opened: dict[Any, Any] = {}


def _files(address: Address, limits: Limits) -> Any:
    """The file system of an address: one of a kind and process, for its connections."""
    import fsspec

    options: dict[str, Any] = {}
    if address.protocol in ("http", "https"):
        import aiohttp

        # What looks quoted is sent as it is: quoting anew would break a signature.
        options["encoded"] = all(33 <= ord(letter) <= 126 for letter in address.whole)
        times = {"connect": None, "sock_connect": limits.connect, "sock_read": limits.silent}
        options["client_kwargs"] = {
            "timeout": aiohttp.ClientTimeout(total=limits.total, **times),
            "trust_env": True,  # proxies, as other programs take them
        }
    elif address.protocol in ("s3", "s3a"):
        times = {"connect_timeout": limits.connect, "read_timeout": limits.silent}
        options["config_kwargs"] = {**times, "retries": {"max_attempts": 1}}
    key = (os.getpid(), address.protocol, options.get("encoded"), limits)
    found = _opened.get(key)  # no lock: one that is held at a fork would never open again
    if found is None:
        options["skip_instance_cache"] = address.protocol != "memory"
        found = _opened.setdefault(key, fsspec.filesystem(address.protocol, **options))
    return found


def _why(error: Exception) -> NotRead:
    """What went wrong, in our words."""
    if isinstance(error, NotRead):
        return error
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return NotRead(GONE)
    if isinstance(error, IsADirectoryError):
        return NotRead("a folder, not a file")
    if isinstance(error, PermissionError) or status in (401, 403) or "NoCredentialsError" in names:
        said = f" ({status})" if status else ""
        return NotRead(f"access denied{said}; are the credentials right, and not run out?")
    if isinstance(status, int) and status >= 300:
        return NotRead(f"the server answers {status}", status in _BUSY)
    if names & {"InvalidURL", "TooManyRedirects", "NonHttpUrlClientError"}:
        return NotRead("not an address that can be opened")
    slow = {"FSTimeoutError", "ReadTimeoutError", "ConnectTimeoutError"}
    if names & slow or isinstance(error, TimeoutError):
        return NotRead("no answer in time", True)
    if names & {"ClientConnectorError", "EndpointConnectionError"}:
        return NotRead("no connection to its host", True)
    if names & {
        "ClientPayloadError",
        "ClientOSError",
        "IncompleteRead",
        "ServerDisconnectedError",
    } or isinstance(error, ConnectionError | EOFError):
        return NotRead("the connection broke off", True)
    return NotRead(f"can't be read ({type(error).__name__})", isinstance(error, OSError))
