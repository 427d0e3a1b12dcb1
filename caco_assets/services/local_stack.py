"""The local stack: Dagster, MLflow and the workspace's pages on loopback as supervised child processes, stopped together."""

from __future__ import annotations

import http.client
import json
import logging
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.core.file_lock import try_lock
from caco_assets.core.processes import is_alive
from caco_assets.resources.dagster.instance import dagster_home
from caco_assets.resources.same_origin import ALLOWED_HOSTS
from caco_assets.services.supervisor import Supervisor
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
# Both UIs answer within 15 s even while the database migrates; three minutes mean that something is wrong.
START_S = 180.0
_WATCH_S = 0.5
_ANSWER_S = 60.0
DAEMON = "dagster-daemon"


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
    dagster = [python, "-m", "caco_assets.resources.dagster.web_server"]
    # one worker: a local stack has one user, and each worker takes 250 MB
    mlflow = [python, "-m", "caco_assets.resources.mlflow.web_server", "server", "--workers", "1"]
    pages = [python, "-m", "caco_assets.services.pages", "--root", str(settings.paths.root)]
    return {
        "dagster": [*dagster, "-h", HOST, "-p", str(ports["dagster"]), *location],
        DAEMON: [python, "-m", "dagster._daemon", "run", *location],
        "mlflow": [*mlflow, "--host", HOST, "--port", str(ports["mlflow"]), *server_arguments(settings)],
        "pages": [*pages, "--host", HOST, "--port", str(ports["pages"])],
    }


def serve(settings: Settings, *, dagster_port: int, mlflow_port: int, pages_port: int, allow_hosts: Sequence[str] = ()) -> None:
    """Start all processes, log their addresses, and keep them running until Ctrl-C or SIGTERM.

    Args:
        settings: the profile.
        dagster_port: a free port is used if this one is taken; also for the other two.
        mlflow_port: of MLflow.
        pages_port: of the pages.
        allow_hosts: names besides loopback's under which browsers may ask, such as that of a proxy.

    Raises:
        UserError: the stack of this workspace runs already; a process ended before it answered, did not answer, or serves
            requests for foreign host names.
    """
    from caco_assets.resources.dagster.instance import open_instance
    from caco_assets.resources.dagster.never_started import mark_never_started
    from caco_assets.resources.mlflow.client import make_database

    wanted = {"dagster": dagster_port, "mlflow": mlflow_port, "pages": pages_port}
    logs = settings.paths.workspace / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with _one_stack(logs) as lock:
        ports = {name: free_port(port) for name, port in wanted.items()}
        for name, port in ports.items():
            if port != wanted[name]:
                logger.info(f"port {wanted[name]} is in use; {name} takes {port}")
        home = dagster_home(settings)
        # create the databases before two processes open them
        with open_instance(home) as instance:
            mark_never_started(instance)
        make_database(settings)
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(home),
            "CACO_PROFILE": settings.profile,
            "CACO_HOME": str(settings.home),
            "CACO_PAGES_URL": f"http://{HOST}:{ports['pages']}",
        }
        if allow_hosts:
            environment[ALLOWED_HOSTS] = ",".join([*filter(None, [os.environ.get(ALLOWED_HOSTS)]), *allow_hosts])
        # the children keep the lock's file open: those that a killed `caco up` leaves behind still hold the workspace
        stack = Supervisor(logs, settings.home, environment, inherited=(lock,))
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            for name, command in commands(settings, ports).items():
                # runs are processes below the daemon's code server, and outlive the daemon
                stack.start(name, command, keep_workers=name == DAEMON)
            _note(logs, settings, ports, stack)
            for name, port in ports.items():
                _wait_for(name, port, stack)
                _check_guard(name, port)
            logger.info(f"Dagster  http://{HOST}:{ports['dagster']}")
            logger.info(f"MLflow   http://{HOST}:{ports['mlflow']}")
            logger.info(f"Report   http://{HOST}:{ports['pages']}/report/report.html    data docs: /data_docs/index.html")
            logger.info(f"logs in {logs}; Ctrl-C stops everything")
            while True:
                if stack.restart_ended():
                    _note(logs, settings, ports, stack)
                time.sleep(_WATCH_S)
        except KeyboardInterrupt:
            logger.info("stopping")
        finally:
            signal.signal(signal.SIGTERM, previous)
            stack.stop()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _one_stack(logs: Path) -> Iterator[int]:
    """Hold the lock of the workspace's stack while the block runs; gives the descriptor of its file.

    Raises:
        UserError: another process holds it; the message says where it runs.
    """
    with (logs / "up.lock").open("a") as file:
        if not try_lock(file):
            raise UserError(f"{logs.parent}: {_elsewhere(logs / 'up.json')}")
        try:
            yield file.fileno()
        finally:
            (logs / "up.json").unlink(missing_ok=True)


def _note(logs: Path, settings: Settings, ports: Mapping[str, int], stack: Supervisor) -> None:
    """Write down where the stack runs, for the message that a second one gets."""
    note = {
        "pid": os.getpid(),
        "host": platform.node(),
        "profile": settings.profile,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "addresses": {name: f"http://{HOST}:{port}" for name, port in ports.items()},
        "processes": stack.processes(),
    }
    write_atomic(logs / "up.json", json.dumps(note, indent=1) + "\n")


def _elsewhere(file: Path) -> str:
    """Where the stack runs that holds the lock, and what to do."""
    try:
        note: dict[str, Any] = json.loads(file.read_text())
        where = ", ".join(f"{name} {address}" for name, address in note["addresses"].items())
        who = f"process {note['pid']} on {note['host']}, profile {note['profile']}, since {note['since']}"
        dead = note["host"] == platform.node() and not is_alive(note["pid"])
        left = " ".join(str(pid) for pid in note["processes"].values() if dead and is_alive(pid))
    except (OSError, ValueError, LookupError, TypeError):
        return "another `caco up` is starting or stopping here; wait for it or stop it"
    if dead:
        return f"`caco up` was killed and its processes still run ({where}); end them with: kill {left}"
    return f"`caco up` already runs here: {where} ({who}); use it, or stop it first (Ctrl-C there, or kill {note['pid']})"


def _wait_for(name: str, port: int, stack: Supervisor) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if (status := stack.status(name)) is not None:
            raise UserError(f"{name}: ended by itself with status {status}; see {stack.log(name)}")
        try:
            with socket.create_connection((HOST, port), timeout=1):
                return
        except OSError:
            time.sleep(0.3)
    raise UserError(f"{name}: does not answer on port {port} within {START_S:.0f} s; see {stack.log(name)}")


def _check_guard(name: str, port: int) -> None:
    """Ask as a page of another host would: an update of Dagster or MLflow must not open the server unnoticed."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/", headers={"Host": "foreign.invalid"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{name}: does not answer on port {port} ({type(error).__name__}); see the logs") from error
    finally:
        connection.close()
    if status != http.client.FORBIDDEN:
        raise UserError(
            f"{name}: answers requests for a foreign host with status {status}, so any web page could use it; this version of "
            "its server is not supported: install the versions of requirements.lock"
        )
