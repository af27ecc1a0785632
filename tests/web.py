"""A web server on this machine, as pictures lie behind: honest, slow, endless, broken ones."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

SECRET = "Zm9vYmFyc2VjcmV0"


class Web(ThreadingHTTPServer):
    """Files by path, and what the server does with a path: see `_Handler.do_GET`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.ways: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.sent = 0

    def handle_error(self, *_: object) -> None:
        """A client that has hung up is none."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[Web]:
    web = Web()
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def do_GET(self) -> None:
        """Ranges are not known here. The ways: signed, busy, failing, silent, drip, endless, cut,
        chunked (no length), away (to another path)."""
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        way = self.server.ways.get(path, "")
        self.server.asked[path] += 1
        content = self.server.files.get(path)
        if way == "signed" and parse_qs(parts.query).get("X-Amz-Signature") != [SECRET]:
            return self._say(403)
        if (way == "busy" and self.server.asked[path] < 3) or way == "failing":
            return self._say(503)
        if way == "away":
            self.send_response(302)
            self.send_header("Location", "/moved" + path)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if content is None and way != "endless":
            return self._say(404)
        if way == "silent":
            time.sleep(5)
        self.send_response(200)
        if way == "endless":
            return self._chunks(b"0" * 2**16 for _ in range(2**20))
        assert content is not None
        if way == "chunked":
            return self._chunks([content[:100], content[100:]])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if way == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif way == "drip":
            for byte in content:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
        else:
            self.wfile.write(content)
        return None

    def _chunks(self, parts: Iterator[bytes] | list[bytes]) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for part in parts:
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                self.server.sent += len(part)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the other side has enough
            self.close_connection = True

    def _say(self, status: int) -> None:
        text = b"<html>something about " + self.path.encode() + b"</html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing."""
