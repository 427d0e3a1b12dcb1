"""MLflow's own webhook, from a real server to a real receiver: a promotion is told, signed, also by a server that has restarted."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from cryptography.fernet import Fernet

from caco_assets.registry.register import register_encoder
from caco_assets.registry.stage import decide
from caco_assets.resources.mlflow.client import open_tracking, server_arguments
from caco_assets.settings import Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.systems,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


@pytest.fixture
def told() -> Iterator[tuple[str, Queue[tuple[Any, bytes]]]]:
    """The address of a receiver, and what it was sent: headers and body."""
    received: Queue[tuple[Any, bytes]] = Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on standard error."""

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_promotion_is_told_signed_by_a_server_that_has_restarted(
    serve_mlflow: Callable[..., Any],
    mlflow_settings: Settings,
    encoder_dir: Callable[[int], Path],
    policy: Path,
    judged: dict[str, int],
    told: tuple[str, Queue[tuple[Any, bytes]]],
) -> None:
    address, received = told
    # on loopback there is neither https nor a public address
    near = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
    environment = {**near, "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode()}
    first = serve_mlflow(server_arguments(mlflow_settings), environment)
    registry = mlflow_settings.registry.model_copy(update={"tracking_uri": first.url})
    settings = mlflow_settings.model_copy(update={"registry": registry})
    tracking = open_tracking(settings)
    tracking.client.create_webhook("team", address, ["model_version_alias.created"], secret="a secret of ours")
    first.kill()
    serve_mlflow(server_arguments(mlflow_settings), environment, port=int(first.url.rpartition(":")[2]))

    registered = register_encoder(settings, encoder_dir(0), None, {"pack": "abc"}, tracking=tracking)
    assert decide(settings, tracking=tracking).passed
    moved = {}
    while "champion" not in moved:
        headers, body = received.get(timeout=60)
        signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.".encode() + body
        ours = base64.b64encode(hmac.new(b"a secret of ours", signed, hashlib.sha256).digest()).decode()
        assert headers["X-MLflow-Signature"] == f"v1,{ours}"
        about = json.loads(body)
        assert (about["entity"], about["action"]) == ("model_version_alias", "created")
        moved[about["data"]["alias"]] = (about["data"]["name"], about["data"]["version"])
    assert moved["champion"] == ("caco-tiny", registered.version)
