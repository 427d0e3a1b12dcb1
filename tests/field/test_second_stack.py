"""A second `caco up` on a workspace: it starts nothing and says where the first one runs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from caco_assets.core.errors import UserError
from caco_assets.core.file_lock import try_lock
from caco_assets.services import local_stack
from caco_assets.settings import Settings, load_settings

PORTS = {"dagster_port": 0, "mlflow_port": 0, "pages_port": 0}


@pytest.fixture
def running(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Another process holds the workspace; `running(note)` writes down what it is."""

    def nothing_starts(*_: object) -> dict[str, list[str]]:
        pytest.fail("a process was started")

    monkeypatch.setattr(local_stack, "commands", nothing_starts)
    logs = settings.paths.workspace / "logs"
    logs.mkdir(parents=True)
    with (logs / "up.lock").open("w") as held:
        assert try_lock(held)
        yield lambda note: (logs / "up.json").write_text(note if isinstance(note, str) else json.dumps(note))


def note(pid: int, **more: Any) -> dict[str, Any]:
    addresses = {"dagster": "http://127.0.0.1:3000", "mlflow": "http://127.0.0.1:5000"}
    known = {"pid": pid, "host": platform.node(), "profile": "tiny", "since": "2026-11-01T00:00:00+00:00", "addresses": addresses}
    return {**known, "processes": {"dagster": os.getpid()}, **more}


def test_it_names_the_addresses_and_the_process_of_the_first(settings: Settings, running: Any) -> None:
    running(note(os.getpid()))
    with pytest.raises(UserError, match=rf"already runs here: dagster http://127.0.0.1:3000, .*process {os.getpid()} on"):
        local_stack.serve(settings, **PORTS)


def test_another_profile_of_the_same_workspace_is_refused_too(settings: Settings, running: Any, tmp_path: Path) -> None:
    running(note(os.getpid()))
    other = load_settings("embedded", home=settings.home)
    with pytest.raises(UserError, match="already runs here"):
        local_stack.serve(other, **PORTS)


def test_what_a_killed_one_left_running_is_named(settings: Settings, running: Any) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    running(note(dead.pid, processes={"dagster": os.getpid(), "mlflow": dead.pid}))
    with pytest.raises(UserError, match=rf"was killed and its processes still run .*end them with: kill {os.getpid()}$"):
        local_stack.serve(settings, **PORTS)


def test_one_on_another_machine_is_not_taken_for_dead(settings: Settings, running: Any) -> None:
    running(note(2**22 + 1, host="elsewhere"))
    with pytest.raises(UserError, match=r"already runs here: .* on elsewhere"):
        local_stack.serve(settings, **PORTS)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_note_that_is_missing_or_cut_ends_in_one_line(settings: Settings, running: Any, text: str) -> None:
    running(text)
    with pytest.raises(UserError, match="another `caco up` is starting or stopping here"):
        local_stack.serve(settings, **PORTS)
