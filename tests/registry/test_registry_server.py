"""The registry against a real MLflow server on loopback, with artifacts through the server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from caco_assets.errors import UserError
from caco_assets.pretraining.encoder import Encoder
from caco_assets.registry.packaged_encoder import load_encoder
from caco_assets.registry.register import register_encoder
from caco_assets.registry.stage import decide
from caco_assets.registry.versions import aliases, find
from caco_assets.resources.mlflow import open_tracking, server_arguments
from caco_assets.settings import Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]
# A server imports for ten seconds, on a busy machine for minutes.
START_S = 300.0


@pytest.fixture
def server(mlflow_settings: Settings, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = (tmp_path / "server.log").open("wb")
    process = subprocess.Popen(
        [*command, *server_arguments(mlflow_settings)], cwd=tmp_path, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=2):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def test_a_version_is_registered_decided_on_and_loaded_through_a_server(
    server: str, settings: Settings, encoder_dir: Callable[[int], Path], policy: Path, judged: dict[str, int], tmp_path: Path
) -> None:
    remote = settings.model_copy(update={"registry": settings.registry.model_copy(update={"tracking_uri": server})})
    tracking = open_tracking(remote)
    registered = register_encoder(remote, encoder_dir(0), None, {"pack": "abc"}, say=lambda _: None, tracking=tracking)
    assert decide(remote, lambda _: None, tracking=tracking).passed
    assert aliases(tracking, "caco-tiny")["champion"] == registered.version
    assert find(tracking, registered.uri).source.startswith("mlflow-artifacts:/")
    loaded = load_encoder("models:/caco-tiny@champion", tracking)
    assert loaded.identity == Encoder.load(encoder_dir(0)).identity
    with pytest.raises(UserError, match="there are: challenger, champion"):
        load_encoder("models:/caco-tiny@nobody", tracking)
    with pytest.raises(UserError, match="there are: caco-tiny"):
        load_encoder("models:/other/1", tracking)
    assert any((settings.paths.workspace / "mlflow" / "artifacts").rglob("encoder.safetensors"))
