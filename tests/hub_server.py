"""A stand-in for the hub: a server on this machine that knows as much of it as we use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_stand_in"


class Hub(ThreadingHTTPServer):
    """Repositories by name: a list of commits, each with all its files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.stored: dict[str, bytes] = {}  # large files, by their sum
        self.asked: list[str] = []
        self.broken: int | None = None  # answers everything with this status

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The sum and the files of a revision: "main", or a commit's sum."""
        for number, files in reversed(list(enumerate(self.repositories.get(name, [])))):
            sum_ = commit_sum(name, number)
            if revision in ("main", sum_):
                return sum_, files
        return None


def commit_sum(name: str, number: int) -> str:
    """What stands for a commit's hash."""
    return hashlib.sha1(f"{name} {number}".encode()).hexdigest()


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers as long as the block lasts."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._read()

    def do_HEAD(self) -> None:
        self._read()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, content: Any, status: int = 200, **headers: str) -> None:
        self._send(json.dumps(content).encode(), status, "application/json", **headers)

    def _send(self, content: bytes, status: int, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str = "", text: str = "refused") -> None:
        self._json({"error": text}, status, X_Error_Code=code, X_Error_Message=text)

    def _knows(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _read(self) -> None:
        hub, path = self.server, self.path.split("?")[0]
        hub.asked.append(f"{self.command} {path}")
        if hub.broken:
            return self._refuse(hub.broken)
        about = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = about or file
        if found is None:
            return self._refuse(404)
        name = found[1]
        if name not in hub.repositories or (hub.private[name] and not self._knows()):
            return self._refuse(401, "RepoNotFound")
        commit = hub.commit(name, about[3] if about else found[2])
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        sum_, files = commit
        if about is not None and about[2] == "revision":
            siblings = [{"rfilename": one} for one in files]
            return self._json({"id": name, "sha": sum_, "siblings": siblings, "private": False})
        if about is not None:
            return self._json(
                [
                    {"type": "file", "path": one, "size": len(content), "oid": _sum(content)}
                    for one, content in files.items()
                ]
            )
        content = files.get(found[3])
        if content is None:
            return self._refuse(404, "EntryNotFound")
        headers = {"ETag": f'"{_sum(content)}"', "X_Repo_Commit": sum_}
        return self._send(content, 200, "application/octet-stream", **headers)

    def do_PUT(self) -> None:
        content = self._body()
        self.server.stored[hashlib.sha256(content).hexdigest()] = content
        self._send(b"", 200, "text/plain")

    def do_POST(self) -> None:
        hub, path, body = self.server, self.path.split("?")[0], self._body()
        hub.asked.append(f"POST {path}")
        if hub.broken:
            return self._refuse(hub.broken)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if not self._knows():
            return self._refuse(401, text="Invalid username or password.")
        if path == "/api/repos/create":
            wish = json.loads(body)
            name = f"{wish['organization']}/{wish['name']}"
            if wish["organization"] == "others":
                return self._refuse(403, text="You don't have the rights")
            url = {"url": f"{hub.address}/{name}"}
            if name in hub.repositories:
                return self._json(url, 409)
            hub.repositories[name] = []
            hub.private[name] = wish.get("visibility") == "private" or bool(wish.get("private"))
            return self._json(url)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [one["path"] for one in json.loads(body)["files"]]
            modes = {one: "lfs" if one.endswith(".safetensors") else "regular" for one in files}
            said = [{"path": k, "uploadMode": v, "shouldIgnore": False} for k, v in modes.items()]
            return self._json({"files": said})
        if re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            objects = [
                one | {"actions": {"upload": {"href": f"{hub.address}/store/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self._json(self._committed(found[1], body))
        return self._refuse(404)

    def _committed(self, name: str, body: bytes) -> dict[str, str]:
        hub = self.server
        commits = hub.repositories[name]
        files = dict(commits[-1]) if commits else {}
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = hub.stored[value["oid"]]
        commits.append(files)
        sum_ = commit_sum(name, len(commits) - 1)
        return {"commitUrl": f"{hub.address}/{name}/commit/{sum_}", "commitOid": sum_}


def _sum(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
