"""A server on loopback that answers whatever a test wants, however odd."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

CORE = ("https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search")


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any = None
    """Parsed JSON of a POST."""


@dataclass
class Reply:
    """One response; `body` may be an iterator of blocks, which is sent until the client leaves. `raw`: bytes in place of all."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""
    raw: bytes | None = None


Answering = Callable[[Asked], Reply]


def reply_json(content: Any, status: int = 200) -> Reply:
    return Reply(status, {"Content-Type": "application/json"}, json.dumps(content).encode())


class ScriptedServer:
    """Counts and remembers what it is asked."""

    def __init__(self, answering: Answering) -> None:
        self.asked: list[Asked] = []
        self.sent = 0
        """Bytes of bodies that went out."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                asked = Asked(self.command, self.path, dict(self.headers), body)
                outer.asked.append(asked)
                reply = answering(asked)
                self.close_connection = True
                try:
                    if reply.raw is not None:
                        self.wfile.write(reply.raw)
                        return
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    blocks = [reply.body] if isinstance(reply.body, bytes) else reply.body
                    if isinstance(reply.body, bytes) and "Content-Length" not in reply.headers:
                        self.send_header("Content-Length", str(len(reply.body)))
                    self.send_header("Connection", "close")
                    self.end_headers()
                    for block in blocks:
                        self.wfile.write(block)
                        outer.sent += len(block)
                except OSError:
                    return  # the client has heard enough

            do_GET = do_POST = answer  # noqa: N815 (the names are http.server's)

            def log_message(self, *arguments: object) -> None:
                """Quiet."""

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_port}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()


def landing_page(url: str) -> dict[str, Any]:
    links = [{"rel": "self", "href": url}, {"rel": "root", "href": url}]
    links.append({"rel": "search", "href": f"{url}/search", "method": "POST", "type": "application/geo+json"})
    return {
        "type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "x", "conformsTo": list(CORE), "links": links,
    }  # fmt: skip


@pytest.fixture
def scripted() -> Iterator[Callable[[Answering], ScriptedServer]]:
    """`server = scripted(answering)`: a server whose every response is `answering(request)`."""
    started: list[ScriptedServer] = []

    def start(answering: Answering) -> ScriptedServer:
        started.append(ScriptedServer(answering))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def stac_api_of(scripted: Callable[[Answering], ScriptedServer]) -> Callable[[Answering], ScriptedServer]:
    """`server = stac_api_of(answering)`: a STAC API whose searches are answered by `answering(request)`."""

    def start(answering: Answering) -> ScriptedServer:
        found: list[ScriptedServer] = []

        def answer(asked: Asked) -> Reply:
            if asked.path.startswith("/search"):
                return answering(asked)
            return reply_json(landing_page(found[0].url))

        found.append(scripted(answer))
        return found[0]

    return start
