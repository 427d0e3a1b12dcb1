"""Servers that tests of several rooms talk to, on loopback: MLflow, an S3 API, PostgreSQL, a STAC API, files over HTTP."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cog_server import Provider, running

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""Debian keeps a folder a version."""


@dataclass(frozen=True)
class StacServer:
    """A running API and the way to fill it."""

    url: str
    environment: dict[str, str]

    def load(self, collection: dict, items: list[dict], folder: Path) -> None:
        """Put a collection and its items into the database."""
        for kind, records in (("collections", [collection]), ("items", items)):
            file = folder / f"{kind}.ndjson"
            file.write_text("\n".join(json.dumps(record) for record in records))
            run([tool("pypgstac"), "load", kind, str(file), "--method", "upsert"], self.environment)


def tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.fail(f"{' '.join(command[:4])}: {done.stdout[-500:]} {done.stderr[-1500:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def postgres() -> Iterator[dict[str, str]]:
    """An empty database in a temporary folder; the variables that lead to it."""
    if not POSTGRES or not list(Path("/usr/share/postgresql").glob("*/extension/postgis.control")):
        pytest.skip("no PostgreSQL with PostGIS here (Debian: postgresql-15 postgresql-15-postgis-3): the STAC API is not tested")
    programs, port = POSTGRES[-1], free_port()
    # not below pytest's folder, which other users cannot enter: PostgreSQL refuses to run as root
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="caco-postgres-") as folder:
        home = Path(folder)
        secret, log = home / "password", home / "log"
        secret.write_text("loopback-only")
        secret.chmod(0o644)
        if as_user:
            shutil.chown(home, "postgres", "postgres")
        data = ["-D", str(home / "data")]
        run([*as_user, str(programs / "initdb"), *data, "-U", "pgstac", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8"])
        options = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": home, "fsync": "off"}
        switches = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        login = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "pgstac", "PGPASSWORD": "loopback-only"}
        environment = {**os.environ, **login, "PGDATABASE": "postgres"}
        ready = [str(programs / "pg_isready"), "-q"]
        with log.open("w") as stream:
            server = subprocess.Popen([*as_user, str(programs / "postgres"), *data, *switches], stdout=stream, stderr=stream)
            try:
                wait_for(lambda: subprocess.run(ready, env=environment, check=False).returncode == 0, server, log)
                yield environment
            finally:
                server.terminate()
                server.wait(30)


@pytest.fixture(scope="session")
def stac_server(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[StacServer]:
    """stac-fastapi over pgstac, as its authors run it."""
    run([tool("pypgstac"), "migrate"], postgres)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("stac_server") / "log"
    command = [sys.executable, "-m", "uvicorn", "--factory", "stac_fastapi.pgstac.app:create_app", "--port", str(port)]
    with log.open("w") as stream:
        server = subprocess.Popen(command, env=postgres, stdout=stream, stderr=stream)
        try:
            wait_for(lambda: answers(url), server, log)
            yield StacServer(url, postgres)
        finally:
            server.terminate()
            server.wait(30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def wait_for(ready: Callable[[], bool], process: subprocess.Popen, log: Path | None = None, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"a server of the tests did not start: {log.read_text()[-2000:] if log else process.args}")
        time.sleep(0.2)


class RangeHandler(SimpleHTTPRequestHandler):
    """Files, and parts of files: what Python's own server lacks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, with_body: bool) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)) if wanted else (0, len(content) - 1)
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end + 1 - start))
        self.end_headers()
        if with_body:
            self.wfile.write(content[start : end + 1])

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def serve_files() -> Iterator[Callable[[Path], str]]:
    """Serves a folder over HTTP; gives its address."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def serve(folder: Path) -> str:
        handler = type(
            "Handler", (RangeHandler,), {"__init__": lambda self, *args: RangeHandler.__init__(self, *args, directory=str(folder))}
        )
        httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        servers.append((httpd, thread))
        return f"http://127.0.0.1:{httpd.server_port}"

    yield serve
    for httpd, thread in servers:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


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
        port = port or free_port()
        log = tmp_path / f"server-{len(started)}.log"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        variables = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **(environment or {})}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, *arguments], cwd=tmp_path, env=variables, stdout=out, stderr=out, start_new_session=True
            )
        started.append(MlflowServer(f"http://127.0.0.1:{port}", process, log))
        started[-1].wait()
        return started[-1]

    yield serve
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[Provider]]:
    """Starts a provider of files that can fail, in a process of its own: `with serving(folder, latency=…) as provider`."""
    return running
