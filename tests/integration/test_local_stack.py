"""`caco up` for real: both UIs on loopback, other ports when the usual ones are taken, one Ctrl-C stops everything."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from caco_assets.services.local_stack import free_port

pytestmark = pytest.mark.integration


@pytest.fixture
def occupied() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_in_use_is_replaced_by_a_free_one(occupied: int) -> None:
    assert free_port(occupied) not in (0, occupied)


@pytest.mark.systems
def test_the_local_stack_serves_dagster_mlflow_and_pages_until_ctrl_c(tmp_path: Path, occupied: int) -> None:
    environment = {**os.environ, "CACO_HOME": str(tmp_path), "CACO_PROFILE": "tiny"}
    (tmp_path / "workspace" / "tiny" / "report").mkdir(parents=True)
    (tmp_path / "workspace" / "tiny" / "report" / "report.html").write_text("the report")
    ports = [f"--{name}-port={port}" for name, port in {"dagster": occupied, "mlflow": free_port(0), "pages": free_port(0)}.items()]
    # a test run that a script put in the background ignores Ctrl-C, and so would its children
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    desk = subprocess.Popen(
        [sys.executable, "-m", "caco_assets.cli", "up", *ports], env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    signal.signal(signal.SIGINT, before)
    try:
        said = _until(desk, "Ctrl-C")
        assert f"port {occupied} is in use" in said
        urls = dict(re.findall(r"^(Dagster|MLflow|Report)\s+(\S+)", said, flags=re.MULTILINE))
        assert b"dagster" in _get(urls["Dagster"] + "/server_info")
        assert _get(urls["MLflow"] + "/health") == b"OK"
        assert _get(urls["Report"]) == b"the report"
        desk.send_signal(signal.SIGINT)
        assert desk.wait(120) == 0
        for url in urls.values():
            with pytest.raises(OSError, match=r"refused"):
                _get(url)
    finally:
        desk.kill()
        desk.wait()
        assert desk.stderr is not None
        desk.stderr.close()


def _until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stderr is not None
    said, deadline = "", time.monotonic() + 400  # four servers import at once: seconds on a quiet machine, minutes on a busy one
    while word not in said and time.monotonic() < deadline:
        line = process.stderr.readline()
        assert line, f"ended early: {said}"
        said += line
    return said


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read()
