"""Children that end are started again, the others are left alone, and all end together."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from caco_assets.services import supervisor
from caco_assets.services.supervisor import Supervisor

LIVES = [sys.executable, "-c", "import time; time.sleep(60)"]
DIES = [sys.executable, "-c", "import sys; print('no good'); sys.exit(3)"]
WITH_A_WORKER = [
    "bash", "-c", "sleep 60 & echo $! > worker; wait",
]  # fmt: skip


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE_S", 0.2)
    made = Supervisor(tmp_path, tmp_path, os.environ)
    yield made
    made.stop()


def test_a_killed_child_is_started_again_and_the_others_run_on(children: Supervisor, logged: Callable[[], list[str]]) -> None:
    lines = logged()
    children.start("mlflow", LIVES)
    children.start("training", LIVES)
    before = children.processes()
    os.kill(before["mlflow"], signal.SIGKILL)
    _until(children, lambda: children.processes()["mlflow"] != before["mlflow"])
    assert children.status("mlflow") is None
    assert children.processes()["training"] == before["training"]
    assert children.status("training") is None
    assert any("mlflow: was ended by SIGKILL; it is started again in 0.05 s" in line for line in lines)
    assert any(f"mlflow: started again (process {children.processes()['mlflow']})" in line for line in lines)


def test_the_pause_before_a_restart_doubles_up_to_a_limit(children: Supervisor, logged: Callable[[], list[str]]) -> None:
    lines = logged()
    children.start("broken", DIES)
    _until(children, lambda: sum("ended with status 3" in line for line in lines) == 4)
    pauses = [line.split(" again in ")[1].split(" s")[0] for line in lines if "ended with status 3" in line]
    assert pauses == ["0.05", "0.1", "0.2", "0.2"]
    # the log keeps what each of them has said
    assert children.log("broken").read_text().count("no good") >= 4


def test_a_child_that_ran_for_long_is_started_again_after_the_first_pause(
    children: Supervisor, logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STEADY_S", 0.0)
    lines = logged()
    children.start("broken", DIES)
    _until(children, lambda: sum("ended with status 3" in line for line in lines) == 3)
    assert all(" again in 0.05 s" in line for line in lines if "ended" in line)


@pytest.mark.parametrize("keep", [True, False])
def test_workers_of_a_dead_child_live_on_only_if_they_are_runs(children: Supervisor, tmp_path: Path, keep: bool) -> None:
    children.start("daemon", WITH_A_WORKER, keep_workers=keep)
    _until(children, lambda: (tmp_path / "worker").exists() and (tmp_path / "worker").read_text().endswith("\n"))
    worker, before = int((tmp_path / "worker").read_text()), children.processes()["daemon"]
    os.kill(before, signal.SIGKILL)
    _until(children, lambda: children.processes()["daemon"] != before)
    assert _runs(worker) is keep
    children.stop()
    assert not _runs(worker)


def test_a_child_that_ignores_the_request_to_end_is_killed(children: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_S", 0.3)
    children.start("deaf", ["bash", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"])
    _until(children, lambda: "ready" in children.log("deaf").read_text())
    children.stop()
    assert children.status("deaf") == -signal.SIGKILL


def _until(children: Supervisor, there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not there():
        assert time.monotonic() < deadline
        children.restart_ended()
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    """A killed process whose new parent has not asked for its status yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
