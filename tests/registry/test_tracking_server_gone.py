"""The tracking server goes away in the middle of a registration: it is said, nothing is half registered, the next try ends it.

A gateway before a real server breaks off at a chosen request, before or after the server has carried it out.
"""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from caco_assets.registry.aliases.alias_moves import unfit
from caco_assets.registry.package.mlflow_model import load_encoder
from caco_assets.registry.promotion.rules import loads
from caco_assets.registry.register import register_encoder
from caco_assets.registry.versions import GATE, aliases, find, versions
from caco_assets.resources.mlflow.client import ServerAwayError, Tracking, open_tracking, server_arguments
from caco_assets.settings import Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.systems,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]
WRITES = ("POST", "PUT", "PATCH", "DELETE")
VERSION = "/api/mlflow/model-versions/create"
BREAKS = {
    "files": ("artifacts", False),
    "version-asked": (VERSION, False),
    "version-made": (VERSION, True),
    "alias": ("/api/mlflow/registered-models/alias", False),
}
"""Model → the request of its registration at which the server goes, and whether it has carried it out."""


class Gateway(ThreadingHTTPServer):
    """Hands requests on; breaks off at the path `breaks`: `carried_out` or not, and `stays` away or not."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream.removeprefix("http://")
        self.breaks, self.carried_out, self.stays, self.away = "", False, False, False

    def arm(self, path: str, *, carried_out: bool, stays: bool) -> None:
        self.breaks, self.carried_out, self.stays, self.away = path, carried_out, stays, False

    def heal(self) -> None:
        self.breaks, self.away = "", False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        gate, hit = self.server, False
        if self.command in WRITES:
            hit = endpoint(self.path) == gate.breaks
        if hit:
            gate.away, gate.breaks = gate.stays, ""
        if (gate.away or hit) and not (hit and gate.carried_out):
            self.close_connection = True
            return
        upstream = http.client.HTTPConnection(gate.upstream, timeout=60)
        upstream.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() != "host"})
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if hit:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def endpoint(path: str) -> str:
    """What a request is about, without ids: `runs/create`, `artifacts`."""
    parts = path.partition("?")[0].split("/")
    return "artifacts" if "mlflow-artifacts" in parts else "/".join(part for part in parts if not any(c.isdigit() for c in part))


@contextmanager
def gateway(upstream: str) -> Iterator[Gateway]:
    gate = Gateway(upstream)
    thread = threading.Thread(target=gate.serve_forever, daemon=True)
    thread.start()
    try:
        yield gate
    finally:
        gate.shutdown()
        gate.server_close()
        thread.join()


def test_whenever_the_server_goes_the_next_registration_ends_with_one_whole_version(
    serve_mlflow: Callable[..., Any],
    mlflow_settings: Settings,
    encoder_dir: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # one repetition of a request, at once
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with gateway(serve_mlflow(server_arguments(mlflow_settings)).url) as gate:

        def told(model: str) -> tuple[Settings, Tracking]:
            registry = {"tracking_uri": f"http://127.0.0.1:{gate.server_port}", "model": model}
            settings = mlflow_settings.model_copy(update={"registry": mlflow_settings.registry.model_copy(update=registry)})
            return settings, open_tracking(settings)

        def register(settings: Settings, tracking: Tracking) -> None:
            register_encoder(settings, encoder_dir(0), None, {"pack": "abc"}, tracking=tracking)

        def whole(model: str, tracking: Tracking) -> None:
            (version,) = versions(tracking, model)
            assert aliases(tracking, model) == {"challenger": version.version}
            assert load_encoder(f"models:/{model}@challenger", tracking).identity == version.tags["encoder_identity"]

        for name, (kind, carried_out) in BREAKS.items():
            settings, tracking = told(name)
            model = settings.registry.model
            gate.arm(kind, carried_out=carried_out, stays=True)
            with pytest.raises(ServerAwayError, match=r"start it and run the same again"):
                register(settings, tracking)
            assert gate.away, kind
            gate.heal()
            known = versions(tracking, model)
            assert set(aliases(tracking, model).values()) <= {version.version for version in known}, kind
            for version in known:
                load_encoder(f"models:/{model}/{version.version}", tracking)
            register(settings, tracking)
            whole(model, tracking)

        # an answer is lost and the client asks again: the server makes a second version, which is taken back
        settings, tracking = told("twice")
        gate.arm(VERSION, carried_out=True, stays=False)
        register(settings, tracking)
        whole("twice", tracking)

        # a version that cannot be fetched now is not one that does not load: a champion does not lose its place to a restart
        tracking.client.set_model_version_tag("twice", "1", GATE, "passed")
        real = tracking.client.get_model_version_download_uri

        def goes(name: str, version: str) -> str:
            gate.away = True
            return real(name, version)

        monkeypatch.setattr(tracking.client, "get_model_version_download_uri", goes)
        version = find(tracking, "models:/twice/1")
        for question in (lambda: loads(tracking, version), lambda: unfit(tracking, "twice", "1")):
            gate.away = False
            with pytest.raises(ServerAwayError):
                question()
        gate.away = False
