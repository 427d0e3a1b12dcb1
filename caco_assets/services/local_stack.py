"""The local stack: Dagster UI, MLflow UI and the workspace's pages as child processes on loopback, stopped together."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from subprocess import DEVNULL

from caco_assets.core.errors import UserError
from caco_assets.resources.dagster.instance import dagster_home
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
# Both UIs answer within 15 s even while the database migrates; three minutes mean that something is wrong.
START_S = 180.0
STOP_S = 10.0


def free_port(wanted: int) -> int:
    """`wanted` if it is free, else a free port chosen by the system."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise UserError(f"{HOST}: no free port at all; close some programs and try again")


def commands(settings: Settings, ports: Mapping[str, int]) -> dict[str, list[str]]:
    """Name → command line of each process."""
    from caco_assets.resources.mlflow.client import server_arguments

    python, location = sys.executable, ["-m", "caco_assets.definitions"]
    # one worker: a local stack has one user, and each worker takes 250 MB
    mlflow = [python, "-m", "mlflow", "server", "--workers", "1"]
    return {
        "dagster": [python, "-m", "dagster_webserver", "-h", HOST, "-p", str(ports["dagster"]), *location],
        "dagster-daemon": [python, "-m", "dagster._daemon", "run", *location],
        "mlflow": [*mlflow, "--host", HOST, "--port", str(ports["mlflow"]), *server_arguments(settings)],
        "pages": [python, "-m", "http.server", str(ports["pages"]), "--bind", HOST, "--directory", str(settings.paths.root)],
    }


def serve(settings: Settings, *, dagster_port: int, mlflow_port: int, pages_port: int) -> None:
    """Start all processes, print their addresses, and wait until Ctrl-C or the end of a process.

    Raises:
        UserError: a process ended or did not answer; the message names its log.
    """
    from caco_assets.resources.dagster.instance import open_instance

    wanted = {"dagster": dagster_port, "mlflow": mlflow_port, "pages": pages_port}
    ports = {name: free_port(port) for name, port in wanted.items()}
    for name, port in ports.items():
        if port != wanted[name]:
            logger.info(f"port {wanted[name]} is in use; {name} takes {port}")
    logs = settings.paths.workspace / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    home = dagster_home(settings)
    # create its databases before two processes open them
    open_instance(home).dispose()
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "CACO_PROFILE": settings.profile,
        "CACO_HOME": str(settings.home),
        "CACO_PAGES_URL": f"http://{HOST}:{ports['pages']}",
    }
    children: dict[str, subprocess.Popen[bytes]] = {}
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        for name, command in commands(settings, ports).items():
            with (logs / f"{name}.log").open("wb") as log:
                # a separate session, so that Ctrl-C reaches only this process and children are stopped in order
                children[name] = subprocess.Popen(
                    command, cwd=settings.home, env=environment, stdout=log, stderr=log, stdin=DEVNULL, start_new_session=True
                )
        for name, port in ports.items():
            _wait_for(name, port, children[name], logs)
        logger.info(f"Dagster  http://{HOST}:{ports['dagster']}")
        logger.info(f"MLflow   http://{HOST}:{ports['mlflow']}")
        logger.info(f"Report   http://{HOST}:{ports['pages']}/report/report.html    data docs: /data_docs/")
        logger.info(f"logs in {logs}; Ctrl-C stops everything")
        while True:
            for name, child in children.items():
                if child.poll() is not None:
                    raise _ended(name, child, logs)
            time.sleep(0.5)
    except KeyboardInterrupt:
        logger.info("stopping")
    finally:
        signal.signal(signal.SIGTERM, previous)
        _stop(children)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _wait_for(name: str, port: int, child: subprocess.Popen[bytes], logs: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise _ended(name, child, logs)
        try:
            with socket.create_connection((HOST, port), timeout=1):
                return
        except OSError:
            time.sleep(0.3)
    raise UserError(f"{name}: does not answer on port {port} within {START_S:.0f} s; see {logs / f'{name}.log'}")


def _ended(name: str, child: subprocess.Popen[bytes], logs: Path) -> UserError:
    return UserError(f"{name}: ended by itself with status {child.returncode}; see {logs / f'{name}.log'}")


def _stop(children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for child in children.values():
        _signal(child, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    for child in children.values():
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(child, signal.SIGKILL)
            child.wait()


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    # stop the whole group: web servers have worker processes
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return
