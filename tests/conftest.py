"""Shared fixtures: settings in a folder of the test's own, and the folders of reference data."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

# before torch is imported: the tests' tensors are tiny, and two workers with two threads each on two cores mostly wait
os.environ.setdefault("OMP_NUM_THREADS", "1")

from caco_assets.observability.logs import log_to
from caco_assets.settings import Settings, load_settings

# how long an example takes says more about the machine than about the code
# the gate judges a change, always by the same examples; at a desk every run looks for new ones
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

REPOSITORY = Path(__file__).resolve().parents[1]


def _shared(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or REPOSITORY.parent / "shared" / name)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of golden numbers (`CACO_GOLDEN`); the test is skipped, saying so, where it is absent."""
    folder = _shared("CACO_GOLDEN", "golden")
    if not folder.is_dir():
        pytest.skip(f"no golden numbers: {folder} does not exist (set CACO_GOLDEN)")
    return folder


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder of real imagery (`CACO_REAL`); the test is skipped, saying so, where it is absent."""
    folder = _shared("CACO_REAL", "real")
    if not folder.is_dir():
        pytest.skip(f"no real imagery: {folder} does not exist (set CACO_REAL)")
    return folder


@pytest.fixture
def s3_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a real, empty S3 API on loopback (moto's server), with a login in the environment; skipped where there is none."""
    moto = pytest.importorskip("moto.server", reason="moto's server is not installed: no S3 API to talk to")
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    served = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    served.start()
    try:
        address = "http://{}:{}".format(*served.get_host_and_port())
        # all of its servers in one process share one memory
        urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST")).close()
        yield address
    finally:
        served.stop()


@pytest.fixture
def logged() -> Iterator[Callable[[], list[str]]]:
    """`lines = logged()`: the texts that the package logs from then on; a second list takes over from the first."""
    with ExitStack() as stack:

        def collect() -> list[str]:
            stack.close()
            lines: list[str] = []
            stack.enter_context(log_to(lambda _level, line: lines.append(line)))
            return lines

        yield collect


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The embedded profile, very small, with all state in the test's own folder."""
    return load_settings("tiny", home=tmp_path)


@pytest.fixture(scope="session")
def migrated_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, made once: its migration takes seconds."""
    from caco_assets.resources.mlflow.client import open_tracking

    home = tmp_path_factory.mktemp("mlflow")
    open_tracking(load_settings("tiny", home=home))
    return home / "workspace" / "mlflow" / "mlflow.db"


@pytest.fixture
def mlflow_settings(settings: Settings, migrated_mlflow: Path) -> Settings:
    """`settings`, whose workspace already has an empty MLflow database."""
    target = settings.paths.workspace / "mlflow" / "mlflow.db"
    target.parent.mkdir(parents=True)
    shutil.copyfile(migrated_mlflow, target)
    return settings


@dataclass
class MlflowServer:
    """A server process on loopback."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, patience_s: float = 400.0) -> None:
        """Until it answers: it imports for ten seconds and may make its tables, which takes minutes on a busy machine."""
        deadline = time.monotonic() + patience_s
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)

    def kill(self) -> None:
        """As a power cut does, with all its workers."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def serve_mlflow(tmp_path: Path) -> Iterator[Callable[..., MlflowServer]]:
    """Starts a real MLflow server: `serve_mlflow(arguments, environment={}, port=None)`; it answers, and ends with the test."""
    started: list[MlflowServer] = []

    def serve(arguments: Sequence[str], environment: Mapping[str, str] | None = None, port: int | None = None) -> MlflowServer:
        if port is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
        log = tmp_path / f"server-{len(started)}.log"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        told = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **(environment or {})}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, *arguments], cwd=tmp_path, env=told, stdout=out, stderr=out, start_new_session=True
            )
        started.append(MlflowServer(f"http://127.0.0.1:{port}", process, log))
        started[-1].wait()
        return started[-1]

    yield serve
    for server in started:
        server.kill()
