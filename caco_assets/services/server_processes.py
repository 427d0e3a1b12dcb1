"""The processes of a team's server: required variables, command line and health check of each.

A process reads its secrets from files, checks that nothing is missing, and execs the program that does the work: no secret is in
a command line or in the description of a container.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.resources.dagster.instance import instance_home
from caco_assets.resources.dvc.home import template
from caco_assets.settings import find_home, load_settings
from caco_assets.settings.deployment import DATABASE, MLFLOW_SERVER, STORE, VARIABLE, deployment, read_secrets

CODE_SERVER, ARTIFACTS, ENDPOINT = "CACO_CODE_SERVER", "CACO_MLFLOW_ARTIFACTS", "CACO_VERSIONS__ENDPOINT"
"""`host:port` of the code server; where MLflow keeps artifacts (`s3://bucket/mlflow`); address of the store."""
MLFLOW_WORKERS = 2
_CONNECTION_S = 1
"""Age in seconds at which a connection is replaced: less than any server takes to start."""
LOCATION = "caco"
HEALTH_S = 10.0
Environment = dict[str, str]


@dataclass(frozen=True)
class Service:
    """One type of process."""

    port: int
    """Default port; 0: it does not listen."""
    needs: tuple[str, ...]
    """Required variables besides those that the settings check."""
    command: Callable[[str, int, Environment], list[str]]
    """Host, port and environment (to which it may add) → command line."""
    healthy: Callable[[int], bool]


def _code(host: str, port: int, environ: Environment) -> list[str]:
    from caco_assets.resources.dvc.home import ensure_home

    settings = load_settings()
    ensure_home(settings)
    environ["CACO_PROFILE"] = os.environ.get("CACO_PROFILE") or settings.profile
    options = ["-h", host, "-p", str(port), "--location-name", LOCATION, "--log-format", "json"]
    return _dagster("dagster", "api", "grpc", "-m", "caco_assets.definitions", *options)


def _webserver(host: str, port: int, environ: Environment) -> list[str]:
    # it keeps a connection to each storage open; after a restart of PostgreSQL the next query would use a dead connection
    fresh = ["--db-pool-recycle", str(_CONNECTION_S)]
    return _dagster(
        "caco_assets.resources.dagster.web_server",
        "-h",
        host,
        "-p",
        str(port),
        "--log-format",
        "json",
        *fresh,
        *_code_server(environ),
    )


def _daemon(host: str, port: int, environ: Environment) -> list[str]:  # noqa: ARG001 - it listens nowhere
    return _dagster("dagster._daemon", "run", "--log-format", "json", *_code_server(environ))


def _mlflow(host: str, port: int, environ: Environment) -> list[str]:
    environ["MLFLOW_BACKEND_STORE_URI"] = "postgresql:///mlflow"
    environ["MLFLOW_AUTH_CONFIG_PATH"] = str(template("mlflow/basic_auth.ini"))
    if ENDPOINT in environ:
        environ["MLFLOW_S3_ENDPOINT_URL"] = environ[ENDPOINT]
    stores = ["--artifacts-destination", environ[ARTIFACTS], "--serve-artifacts"]
    options = ["--app-name", "basic-auth", "--workers", str(MLFLOW_WORKERS), "--host", host, "--port", str(port)]
    return [sys.executable, "-m", "mlflow", "server", *options, *stores]


def _serving(path: str) -> Callable[[int], bool]:
    def healthy(port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=HEALTH_S) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    return healthy


def _answers_grpc(port: int) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service="DagsterApi"), timeout=HEALTH_S)
        except grpc.RpcError:
            return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def _has_a_pulse(port: int) -> bool:  # noqa: ARG001 - it listens nowhere
    import subprocess

    environ = {**os.environ, "DAGSTER_HOME": str(instance_home(find_home() / "workspace"))}
    return (
        subprocess.run(_dagster("dagster._daemon", "liveness-check"), env=environ, capture_output=True, check=False).returncode == 0
    )


SERVICES = {
    "code": Service(4000, (), _code, _answers_grpc),
    "webserver": Service(3000, (*DATABASE, CODE_SERVER), _webserver, _serving("/server_info")),
    "daemon": Service(0, (*DATABASE, CODE_SERVER), _daemon, _has_a_pulse),
    "mlflow": Service(5000, (*DATABASE, *STORE, *MLFLOW_SERVER, ARTIFACTS), _mlflow, _serving("/health")),
}


def become(name: str, host: str, port: int | None) -> NoReturn:
    """Replace this process by one of `SERVICES`.

    Raises:
        UserError: the deployment has no servers, or a variable is missing.
    """
    program, environ = prepare(name, host, port)
    os.execve(program[0], program, environ)  # noqa: S606 - there is nothing for a shell to read


def become_other(command: list[str]) -> NoReturn:
    """Replace this process by another program with the secrets in its environment.

    Raises:
        UserError: a secret cannot be read, or the program does not exist.
    """
    read_secrets()
    try:
        os.execvp(command[0], command)  # noqa: S606 - as above
    except FileNotFoundError as error:
        raise UserError(f"{command[0]}: no such program here") from error


def prepare(name: str, host: str, port: int | None) -> tuple[list[str], Environment]:
    """Command line and environment of a service; creates its home and the file that `healthy` reads."""
    where, service = deployment(), SERVICES[name]
    if not where.shared:
        raise UserError(f"{VARIABLE}={where.name}: servers are for `server` and `cluster`; `caco up` opens the UIs of one machine")
    read_secrets()
    where.require(service.needs, os.environ)
    environ = {**os.environ, "CACO_HOME": str(find_home())}
    os.environ["CACO_HOME"] = environ["CACO_HOME"]
    environ["DAGSTER_HOME"] = str(instance_home(find_home() / "workspace"))
    # server logs are read mainly by machines
    environ.setdefault("CACO_LOG", "json")
    listens = port or service.port
    command = service.command(host, listens, environ)
    write_atomic(_note(), json.dumps({"service": name, "port": listens}) + "\n")
    return command, environ


def healthy() -> bool:
    """Whether the service of this container (or temporary folder) answers.

    Raises:
        UserError: no service was started here.
    """
    try:
        note = json.loads(_note().read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{_note()}: no service was started here; `caco server run NAME` starts one") from error
    read_secrets()
    return SERVICES[note["service"]].healthy(note["port"])


def _note() -> Path:
    return Path(tempfile.gettempdir()) / "caco-service.json"


def _dagster(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _code_server(environ: Mapping[str, str]) -> list[str]:
    """Options that connect to the code server; its location name is fixed because it identifies schedules and sensors."""
    host, _, port = environ[CODE_SERVER].rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"{CODE_SERVER}={environ[CODE_SERVER]}: is written host:port, such as code:4000")
    server = {"host": host, "port": int(port), "location_name": LOCATION}
    workspace = Path(environ["DAGSTER_HOME"]) / "workspace.yaml"
    write_atomic(workspace, yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return ["-w", str(workspace)]
