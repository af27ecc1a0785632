"""Embedders on the hub: `hub:OWNER/NAME` wherever a model is taken, and `resight push`.

What is fetched lies in the hub's own cache, and is read from there when the hub is out of reach.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from resight.errors import UserError

PREFIX = "hub:"
_WAIT = 5.0  # seconds for the hub to answer at all
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_WANTED = ["*.json", "*.safetensors", "*.md"]  # nothing else is read of a repository
_TOKEN = "set HF_TOKEN to a token of yours that may {}; the hub gives them out in its settings"


def is_hub_name(model: str | Path) -> bool:
    """Whether this names an embedder on the hub."""
    return str(model).startswith(PREFIX)


@cache
def fetch(model: str) -> Path:
    """The folder with what "hub:OWNER/NAME" or "hub:OWNER/NAME@REVISION" holds, in the cache.

    Raises UserError: no such name, repository or revision; or the hub is out of reach and the
    cache has it not.
    """
    from huggingface_hub import errors, snapshot_download

    repository, _, revision = model.removeprefix(PREFIX).partition("@")
    check_name(repository, model)
    with impatient_hub() as reached:
        try:
            folder = snapshot_download(
                repository, revision=revision or None, allow_patterns=_WANTED, etag_timeout=_WAIT
            )
        except errors.RevisionNotFoundError:
            raise UserError(f"{model}: {repository} has no revision {revision!r}") from None
        except Exception as error:  # the hub's client raises its own kinds for every fault
            status = _status(error)
            if status in (401, 403, 404):
                hint = _TOKEN.format("read it")
                raise UserError(
                    f"{model}: no such repository on the hub, or a private one; for that {hint}"
                ) from None
            why = f"the hub answered {status}" if status else "the hub can't be reached"
            if reached and not status:
                why = f"it can't be fetched ({type(error).__name__})"
            raise UserError(
                f"{model}: {why}, and its cache has it not; try again later, or give a folder"
            ) from None
    return Path(folder)


def upload(repository: str, files: Mapping[str, Path | bytes], *, public: bool = False) -> str:
    """Put files into a repository in one commit; it is made, private by default. Gives its address.

    A repository that is there already stays as visible as it is.

    Raises UserError: no token, refused, a name that can't be one, or the hub is out of reach.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

    check_name(repository, repository)
    token = get_token()
    if not token:
        raise UserError(f"push {repository}: no token; {_TOKEN.format('write')}")
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"push {repository}: HF_HUB_OFFLINE is set; unset it to upload")
    with impatient_hub() as reached:
        if not reached:
            where = urlsplit(constants.ENDPOINT).hostname
            raise UserError(
                f"push {repository}: the hub ({where}) can't be reached; nothing was uploaded: try "
                "again when it can"
            )
        try:
            api = HfApi(token=token)
            address = api.create_repo(repository, private=not public, exist_ok=True)
            parts = [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in files.items()
            ]
            api.create_commit(repository, parts, commit_message="Uploaded by resight")
        except Exception as error:  # as above
            raise UserError(f"push {repository}: {_refusal(error)}") from None
    return str(address)


def check_name(repository: str, said: str) -> None:
    """Raises UserError unless this can be the name of a repository; `said` is what was typed."""
    if not _NAME.fullmatch(repository):
        name = f"{PREFIX * said.startswith(PREFIX)}OWNER/NAME"
        raise UserError(f"{said}: a repository on the hub is named {name}")


def shown(info: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of an embedder, for others: of files of this machine only their names."""

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner) for inner in value]
        if isinstance(value, str) and Path(value).is_absolute():
            return Path(value).name
        return value

    return {key: clean(value) for key, value in info.items()}


@contextmanager
def impatient_hub() -> Iterator[bool]:
    """Look in the hub's cache only when the hub can't be reached: its client retries for long.

    Yields whether it can.
    """
    import socket  # this and the next: not for those who only ask whether it is a hub's name
    from urllib.request import getproxies

    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty() and constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars()
    logger = logging.getLogger("huggingface_hub")
    level, offline = logger.level, constants.HF_HUB_OFFLINE
    logger.setLevel(logging.ERROR)
    if not offline and not getproxies():
        place = urlsplit(constants.ENDPOINT)
        port = place.port or (80 if place.scheme == "http" else 443)
        try:
            socket.create_connection((place.hostname, port), _WAIT).close()
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield not constants.HF_HUB_OFFLINE
    finally:
        logger.setLevel(level)
        constants.HF_HUB_OFFLINE = offline


def _status(error: BaseException) -> int | None:
    """The status that the hub answered with, where it answered; of a cause too."""
    seen: BaseException | None = error
    while seen is not None:
        status = getattr(getattr(seen, "response", None), "status_code", None)
        if status is not None:
            return int(status)
        seen = seen.__cause__ or seen.__context__
    return None


def _refusal(error: Exception) -> str:
    status = _status(error)
    if status in (401, 403):
        return f"the hub refused it ({status}); {_TOKEN.format('write there')}"
    first = (" ".join(str(error).split()) or type(error).__name__)[:200]
    if status is not None:
        return f"the hub answered {status}: {first}; nothing was uploaded"
    return f"not uploaded ({type(error).__name__}: {first}); try again later"
