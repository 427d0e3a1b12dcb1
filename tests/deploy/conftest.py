"""A team's server as processes of this machine, with the variables and commands of `deploy/compose.yaml`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SERVER = DEPLOY / "server"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
STORE_PACKAGE = "s3rver@3.7.1"
"""A store that keeps objects in a folder and checks signatures; from npm."""
PORTS = {
    "postgres:5432": "postgres",
    "store:8333": "store",
    "mlflow:5000": "mlflow",
    "code:4000": "code",
    "webserver:3000": "webserver",
}
"""As compose names them → our name of the port."""
OUTER = {"dagster": "8443", "tracking": "8444", "pages": "8445"}
"""Our names of the proxy's ports."""
OURS = ("mlflow", "code", "webserver", "daemon")
PATIENCE_S = 600.0
"""Five servers import at once: seconds on a quiet machine, minutes on a busy one."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def variables(*files: str) -> dict[str, str]:
    """What compose would read from environment files."""
    lines = [line for name in files for line in (SERVER / name).read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@dataclass
class Team:
    """The processes; those that end are started again, as compose does."""

    folder: Path
    store_library: Path
    secrets: Path
    ports: dict[str, int] = field(
        default_factory=lambda: {name: free_port() for name in (*PORTS.values(), "dagster", "tracking", "pages")}
    )
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    restarts: list[str] = field(default_factory=list)
    more: dict[str, str] = field(default_factory=dict)
    """Variables beside those of the files."""

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def here(self, text: str) -> str:
        """A text for containers, with this machine's ports and folder of secrets."""
        for there, name in PORTS.items():
            text = text.replace(there, f"127.0.0.1:{self.ports[name]}")
        return text.replace("/run/secrets/", f"{self.secrets}/")

    def environment(self, name: str) -> dict[str, str]:
        """What compose tells a service, and nothing of this machine but its PATH."""
        service = COMPOSE[name]
        told = {key: self.here(value) for key, value in variables(*(Path(file).name for file in service["env_file"])).items()}
        scratch = self.folder / f"tmp-{name}"
        scratch.mkdir(exist_ok=True)
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        database = {"PGHOST": "127.0.0.1", "PGPORT": str(self.ports["postgres"])}
        quiet = {
            "OMP_NUM_THREADS": "1",
            "CACO_HOME": str(self.home),
            "CACO_PROFILE": "tiny",
            "CACO_REAL": str(self.folder / "none"),
        }
        return {**own, **told, **database, **quiet, **self.more}

    def caco(self, *arguments: str, service: str = "tools") -> str:
        """A command by hand."""
        done = subprocess.run(
            ["caco", *arguments],
            env=self.environment(service),
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def backup(self, folder: Path) -> None:
        """As the runbook says, without containers."""
        done = self.by_hand("backup", folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def restore(self, folder: Path) -> None:
        """Into stores that are empty."""
        done = self.by_hand("restore", folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def by_hand(self, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """One of the scripts, run to its end."""
        environ = {**self.environment("tools"), "NATIVE": "1"}
        return subprocess.run([str(SERVER / script), str(folder)], env=environ, capture_output=True, text=True, check=False)

    def start(self, name: str) -> None:
        """One process, with its log appended."""
        command, environ = {"postgres": self._postgres, "store": self._store, "proxy": self._proxy}.get(
            name, lambda: self._ours(name)
        )()
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, env=environ, cwd=self.home, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End one process with all its children."""
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            # PostgreSQL ends its own children
            (os.kill if name == "postgres" else os.killpg)(process.pid, number)
        process.wait(60)

    def stop_all(self) -> None:
        """As a power cut does, but for PostgreSQL, which ends in order."""
        for name in list(self.running):
            self.stop(name, signal.SIGINT if name == "postgres" else signal.SIGKILL)

    def until(self, there: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
        """Wait, and start again what has ended."""
        end = time.monotonic() + seconds
        while not there():
            for name, process in list(self.running.items()):
                if process.poll() is not None:
                    self.restarts.append(name)
                    assert self.restarts.count(name) < 8, f"{name} ends again and again: {self.log(name).read_text()[-3000:]}"
                    time.sleep(1)
                    self.start(name)
            assert time.monotonic() < end, f"{what}: not after {seconds:.0f} s; {self._tails()}"
            time.sleep(0.5)

    def start_stores(self) -> None:
        """PostgreSQL and the object store, where they do not run."""
        self.home.mkdir(exist_ok=True)
        for name in ("postgres", "store"):
            if name not in self.running:
                self.start(name)
        self.until(lambda: _listens(self.ports["postgres"]) and self._accepts(), "PostgreSQL")
        self.until(lambda: _listens(self.ports["store"]), "the store")

    def start_services(self) -> None:
        """Everything else, in compose's order."""
        self.caco("server", "migrate")
        for name in (*OURS, "proxy"):
            self.start(name)
        for name in ("mlflow", "code", "webserver"):
            self.until(lambda name=name: self.healthy(name), name)
        self.until(lambda: _listens(self.ports["dagster"]), "proxy")

    def healthy(self, name: str) -> bool:
        """What the health check of the image says."""
        if name == "webserver":
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/server_info", timeout=5):
                    return True
            except (urllib.error.URLError, OSError):
                return False
        command = ["caco", "server", "health"]
        return subprocess.run(command, env=self.environment(name), capture_output=True, check=False).returncode == 0

    def ask(self, url: str, login: str | None = None, data: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of a request through the proxy."""
        trusted = ssl.create_default_context(cafile=str(self.secrets / "tls_certificate"))
        headers = {"Content-Type": "application/json"}
        if login:
            headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60, context=trusted) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def graphql(self, query: str, **values: Any) -> dict[str, Any]:
        """A question to Dagster, as a member of the team asks it."""
        body = json.dumps({"query": query, "variables": values}).encode()
        status, answer = self.ask(
            f"https://localhost:{self.ports['dagster']}/graphql", f"team:{self.secret('login_password')}", body
        )
        assert status == 200, answer
        said = json.loads(answer)
        assert not said.get("errors"), said
        return said["data"]

    def runs(self, job: str) -> list[dict[str, Any]]:
        """Runs of a job, the oldest first; none while the database is away."""
        query = "query Q($f: RunsFilter) { runsOrError(filter: $f) { ... on Runs { results { runId status } } } }"
        try:
            return self.graphql(query, f={"pipelineName": job})["runsOrError"]["results"][::-1]
        except (AssertionError, KeyError, OSError, ValueError):
            return []

    def _ours(self, name: str) -> tuple[list[str], dict[str, str]]:
        command = [*COMPOSE[name]["command"], "--host", "127.0.0.1"]
        return [*command, "--port", str(self.ports[name])] if name in self.ports else command, self.environment(name)

    def _postgres(self) -> tuple[list[str], Mapping[str, str]]:
        # not below pytest's folder, which other users cannot enter: PostgreSQL refuses to run as root
        data = self.folder / "postgres"
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        if not data.exists():
            data.mkdir()
            password = data.with_name("password")
            shutil.copyfile(self.secrets / "postgres_password", password)
            password.chmod(0o444)
            if as_user:
                shutil.chown(data, "postgres", "postgres")
            options = ["-D", str(data), "-U", "caco", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8"]
            subprocess.run([*as_user, str(POSTGRES[-1] / "initdb"), *options], check=True, capture_output=True)
            password.unlink()
        settings = {
            "port": self.ports["postgres"],
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": data,
            "fsync": "off",
        }
        switches = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [*as_user, str(POSTGRES[-1] / "postgres"), "-D", str(data), *switches], os.environ

    def _store(self) -> tuple[list[str], Mapping[str, str]]:
        objects = self.folder / "store"
        objects.mkdir(exist_ok=True)
        script, identities = Path(__file__).with_name("store.js"), self.secrets / "store_identities"
        return ["node", str(script), str(self.store_library), str(objects), str(self.ports["store"]), str(identities)], os.environ

    def _proxy(self) -> tuple[list[str], Mapping[str, str]]:
        scratch, config = self.folder / "tmp-proxy", self.folder / "nginx.conf"
        scratch.mkdir(exist_ok=True)
        text = self.here((SERVER / "nginx.conf").read_text().replace("/tmp/", f"{scratch}/"))
        # the stream that a terminal's owner cannot open again is the log here
        text = text.replace("/dev/stdout", str(self.log("access"))).replace("/dev/stderr", str(self.log("proxy")))
        text = text.replace("/srv/caco/", f"{self.home}/")
        for name, there in OUTER.items():
            text = text.replace(there, str(self.ports[name]))
        config.write_text(text)
        # workers of a server that root starts are another user's
        rights = "user root;" if os.geteuid() == 0 else ""
        return ["nginx", "-c", str(config), "-g", f"daemon off; {rights}"], os.environ

    def _accepts(self) -> bool:
        ready = [str(POSTGRES[-1] / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.ports["postgres"])]
        return subprocess.run(ready, check=False).returncode == 0

    def _tails(self) -> str:
        return "\n".join(f"--- {name}\n{self.log(name).read_text()[-1500:]}" for name in self.running if self.log(name).exists())


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def store_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the object store, from npm."""
    if not shutil.which("npm"):
        pytest.skip("no npm here (Debian: npm): the object store of the tests cannot be fetched")
    folder = tmp_path_factory.mktemp("store")
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", STORE_PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"{STORE_PACKAGE} could not be fetched from npm: {done.stderr[-200:]}")
    return folder / "node_modules" / "s3rver"


@pytest.fixture
def new_team(store_library: Path) -> Iterator[Callable[..., Team]]:
    """Makes a team's server, not yet started: `new_team(secrets=None, more={})`; it ends with the test."""
    if not POSTGRES or not shutil.which("nginx"):
        pytest.skip("PostgreSQL and nginx are wanted (Debian: postgresql-15 nginx-light): the team's server is not tested")
    made: list[Team] = []

    def make(secrets: Path | None = None, more: Mapping[str, str] | None = None) -> Team:
        folder = Path(tempfile.mkdtemp(prefix="caco-team-"))
        folder.chmod(0o755)
        if secrets is None:
            secrets = folder / "secrets"
            subprocess.run([str(SERVER / "make-secrets"), str(secrets)], check=True, capture_output=True)
        made.append(Team(folder, store_library, secrets, more=dict(more or {})))
        return made[-1]

    yield make
    for team in made:
        team.stop_all()
        shutil.rmtree(team.folder, ignore_errors=True)
