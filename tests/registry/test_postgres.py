"""The registry on a real MLflow server over PostgreSQL and an S3-compatible store, all on loopback."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from servers import POSTGRES, run

from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.aliases.alias_history import HISTORY, Serving, history
from caco_assets.registry.aliases.champion import rollback
from caco_assets.registry.package.mlflow_model import load_encoder
from caco_assets.registry.register import register_encoder
from caco_assets.registry.registry_lock import is_lock
from caco_assets.registry.release.model_card import DESCRIPTION_LENGTH
from caco_assets.registry.release.release import MODEL_CARD, RELEASED
from caco_assets.registry.stage import decide, decide_version, release
from caco_assets.registry.versions import DECISION, GATE, aliases, find, registered_tags
from caco_assets.resources.mlflow.client import open_tracking
from caco_assets.settings import Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.systems,
    # a minute or two on an idle machine, many on a busy one
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]
MODEL, BUCKET = "caco-tiny", "models"
ROUNDS = 5


@dataclass(frozen=True)
class Server:
    """An MLflow server, and a look behind it."""

    url: str
    objects: Callable[[], list[str]]
    heard: list[dict[str, Any]]
    """What its webhook was told."""
    ear: str
    """Where a webhook finds us."""


@pytest.fixture
def ear() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web server that listens; its address, and what it has heard."""
    heard: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/", heard
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def server(postgres: dict[str, str], ear: tuple[str, list], serve_mlflow: Callable[..., Any]) -> Iterator[Server]:
    moto = pytest.importorskip("moto.server", reason="moto's server is not installed: no S3 API to write to")
    import boto3

    run([str(POSTGRES[-1] / "createdb"), "mlflow"], postgres)
    login = f"{postgres['PGUSER']}:{postgres['PGPASSWORD']}@{postgres['PGHOST']}:{postgres['PGPORT']}"
    store = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    host, port = store.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    named = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    bucket = boto3.resource("s3", endpoint_url=f"http://{host}:{port}", **named).create_bucket(Bucket=BUCKET)
    stores = ["--backend-store-uri", f"postgresql://{login}/mlflow", "--artifacts-destination", f"s3://{BUCKET}/mlflow"]
    environment = {
        **keys, "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }  # fmt: skip
    try:
        address = serve_mlflow([*stores, "--serve-artifacts"], environment).url
        yield Server(address, lambda: [item.key for item in bucket.objects.all()], ear[1], ear[0])
    finally:
        store.stop()


def test_the_whole_life_of_a_champion_over_postgresql_and_s3(
    server: Server, settings: Settings, encoder_dir: Callable[[int], Path], policy: Path, judged: dict[str, int], tmp_path: Path
) -> None:
    from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent

    quick = {**yaml.safe_load(policy.read_text()), "draws": 1000, "latency": {"rounds": 5, "images": 1}}
    policy.write_text(yaml.safe_dump(quick))
    identities = {seed: Encoder.load(encoder_dir(seed)).identity for seed in (0, 1, 2)}
    judged.update({identities[0]: 150, identities[1]: 180, identities[2]: 180})

    def workspace(name: str) -> Settings:
        home = tmp_path / name
        (home / "mlflow").mkdir(parents=True)
        (home / "mlflow" / "promotion.yaml").write_text(policy.read_text())
        remote = settings.registry.model_copy(update={"tracking_uri": server.url})
        return settings.model_copy(update={"home": home, "registry": remote})

    here, there = workspace("here"), workspace("there")
    tracking = open_tracking(here)
    moved = WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED)
    tracking.client.create_webhook("tell", server.ear, [moved])
    for seed in (0, 1, 2):
        register_encoder(here, encoder_dir(seed), None, {}, tracking=tracking)
        if seed == 0:
            assert decide(here, tracking=tracking).passed
    assert any(name.endswith("encoder.safetensors") for name in server.objects())
    assert load_encoder(f"models:/{MODEL}@champion", tracking).identity == identities[0]

    for _ in range(ROUNDS):
        tracking.client.set_registered_model_alias(MODEL, "champion", "1")
        tracking.client.delete_registered_model_tag(MODEL, HISTORY)
        for version in ("2", "3"):
            for tag in (GATE, DECISION):
                tracking.client.delete_model_version_tag(MODEL, version, tag)
        at_once = threading.Barrier(2)
        won: dict[str, bool] = {}

        def decide_on(version: str, settings: Settings, at_once: Any = at_once, won: dict[str, bool] = won) -> None:
            at_once.wait()
            won[version] = decide_version(settings, open_tracking(settings), version).passed

        threads = [threading.Thread(target=decide_on, args=each) for each in (("2", here), ("3", there))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 2
        (winner,) = [version for version, passed in won.items() if passed]
        assert Serving.of(aliases(tracking, MODEL)) == Serving(winner, "1")

    released = release(there, tracking=open_tracking(there))
    assert released is not None
    assert any(name.endswith(f"release/version-{winner}/{MODEL_CARD}") for name in server.objects())
    version = find(tracking, f"models:/{MODEL}@champion")
    assert version.tags[RELEASED] == released.where
    assert version.description.startswith(f"# {MODEL}, version {winner}")
    # the column's length, which SQLite does not watch
    tracking.client.update_model_version(MODEL, winner, "x" * DESCRIPTION_LENGTH)
    assert rollback(here, tracking, reason="ü" * 500).after.champion == "1"
    for number in range(12):
        rollback(here, tracking, reason=f"{'ü' * 400} {number}", restore=True)
    assert len(registered_tags(tracking, MODEL)[HISTORY]) <= 5000
    assert history(tracking, MODEL)[-1].reason.endswith(" 11")
    assert not [model.name for model in tracking.client.search_registered_models() if is_lock(model.name)]

    deadline = time.monotonic() + 60
    while not any(_named(message).alias == "champion" for message in server.heard):
        assert time.monotonic() < deadline, server.heard
        time.sleep(0.2)


def _named(message: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**{"alias": None, **message.get("data", {})})
