"""Run the application: one process, or several that share a socket."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resight.errors import UserError
from resight.serve.app import FOLDER, TOLD
from resight.serve.keys import Keys
from resight.serve.links import SECRET
from resight.serve.logs import set_up
from resight.serve.metrics import SHARED
from resight.serve.settings import LOCAL, Settings


def run(folder: Path, settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until stopped. `tell` is told the address, once it can be connected to.

    Raises UserError: an address that can't be had, or that others can reach, without keys.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    keys = Keys.read(settings.keys)
    if not keys and settings.host not in LOCAL:
        raise UserError(
            f"--host {settings.host}: without keys only this machine may call; make one with "
            "--keys FILE --new-key admin, then give --keys FILE"
        )
    bound = _bind(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    os.environ[FOLDER] = str(folder.absolute())
    os.environ[TOLD] = settings.model_dump_json()
    os.environ[SECRET] = secrets.token_hex(32)
    if settings.processes > 1:
        os.environ[SHARED] = tempfile.mkdtemp(prefix="resight-metrics-")
    set_up()
    options: dict[str, Any] = {"factory": True, "log_config": None, "access_log": False}
    options |= {"workers": settings.processes, "server_header": False, "date_header": True}
    options |= {"timeout_graceful_shutdown": 60, "timeout_keep_alive": 30}
    options |= {"timeout_worker_healthcheck": 60, "h11_max_incomplete_event_size": 2**15}
    config = uvicorn.Config("resight.serve.app:from_environment", **options)
    tell(f"http://{host}:{bound.getsockname()[1]}")
    if settings.processes > 1:
        Multiprocess(config, sockets=[bound]).run()
    else:
        uvicorn.Server(config).run(sockets=[bound])


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or "no such address"
        raise UserError(
            f"{settings.host}:{settings.port}: {reason}; give another --host or --port"
        ) from None
    made.set_inheritable(True)
    made.listen(2048)
    return made
