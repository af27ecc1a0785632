"""Keys and what they allow: search < write < admin.

A file of keys has a line a key, "ROLE SHA256 NAME"; the environment variable RESIGHT_KEYS the same,
with commas between. Only hashes are kept: keys are 256 random bits, so a plain SHA-256 can't be
guessed back.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from resight.errors import UserError
from resight.serve.settings import LOCAL

Role = Literal["search", "write", "admin"]
ROLES: tuple[Role, ...] = ("search", "write", "admin")
VARIABLE = "RESIGHT_KEYS"
_LINE = re.compile(r"(search|write|admin)\s+([0-9a-fA-F]{64})(?:\s+(\S{1,64}))?")


def allows(role: Role, wanted: Role) -> bool:
    """Whether a role may do what another may."""
    return ROLES.index(role) >= ROLES.index(wanted)


@dataclass
class Key:
    """A key by its hash, and what is left of its allowance (a bucket that fills again)."""

    role: Role
    digest: bytes
    name: str
    left: float = field(default=-1.0, compare=False)
    seen: float = field(default=0.0, compare=False)

    def take(self, rate: int, now: float | None = None) -> int:
        """Take one request of `rate` a minute; seconds to wait where there is none, else 0."""
        now = time.monotonic() if now is None else now
        full = max(1.0, rate / 6)  # ten seconds' worth at once
        before = full if self.left < 0 else self.left
        self.left = min(full, before + (now - self.seen) * rate / 60)
        self.seen = now
        if self.left >= 1:
            self.left -= 1
            return 0
        return max(1, math.ceil((1 - self.left) * 60 / rate))


class Keys:
    """All keys; none: everyone may do everything, so only this machine may call."""

    def __init__(self, keys: list[Key]) -> None:
        self.keys = keys

    def __bool__(self) -> bool:
        return bool(self.keys)

    @classmethod
    def read(cls, path: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
        """Of a file and of the environment. Raises UserError for a file or a line that is none."""
        found = _parsed(environment.get(VARIABLE, "").replace(",", "\n"), VARIABLE)
        if path is not None:
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                raise UserError(
                    f"{path}: can't be read; make a key with 'resight serve GALLERY --keys {path} "
                    "--new-key admin'"
                ) from None
            found += _parsed(text, str(path))
            if not found:
                raise UserError(f"{path}: holds no key; --new-key makes one")
        return cls(found)

    def find(self, presented: str) -> Key | None:
        """The key that was presented. All are compared, each in constant time."""
        digest = hashlib.sha256(presented.encode(errors="surrogatepass")).digest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def _parsed(text: str, where: str) -> list[Key]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{where}, line {number}: not of the form ROLE SHA256 NAME")
        name = match[3] or f"{match[1]}-{number}"
        found.append(Key(match[1], bytes.fromhex(match[2]), name))  # type: ignore[arg-type]
    return found


def make(path: Path, role: str) -> str:
    """A new key, its hash appended to the file (which only we may read). It is told only here.

    Raises UserError for another role, or a file that can't be written.
    """
    if role not in ROLES:
        raise UserError(f"--new-key {role}: none of {', '.join(ROLES)}")
    key = "rs_" + secrets.token_urlsafe(32)
    before = Keys.read(path, {}).keys if path.exists() and path.stat().st_size else []
    name = f"{role}-{len(before) + 1}"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        file.write(f"{role} {hashlib.sha256(key.encode()).hexdigest()} {name}\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def is_local(host: str) -> bool:
    """Whether the Host of a request is this machine, with or without a port.

    Without keys a page of another site could call us through a name that points here, or through
    a form; so hosts and origins are looked at.
    """
    name = re.sub(r":\d+$", "", host.strip().lower())
    return name.strip("[]") in LOCAL
