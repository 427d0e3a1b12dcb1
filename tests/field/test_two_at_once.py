"""Two commands in one workspace at the same moment, and what a killed one leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from caco_assets.core.errors import UserError
from caco_assets.orchestration.in_process import IN_PROCESS, mark_orphans_failed
from caco_assets.resources.dagster.never_started import mark_never_started
from caco_assets.resources.dvc import commit as dvc_commit
from caco_assets.resources.dvc.commit import DataVersions
from caco_assets.resources.dvc.repo import locked
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.settings import Settings

OPEN = "from caco_assets.resources.mlflow.client import open_tracking; from caco_assets.settings import load_settings; "
OPEN += "open_tracking(load_settings('tiny')).experiment_id"


@dg.job
def nothing() -> None:
    pass


def test_the_database_of_an_empty_registry_is_created_by_one_at_a_time(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most = [0], [0]

    class Slow:
        """A client whose first call creates the tables."""

        def search_experiments(self, **_: Any) -> None:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.1)
            inside[0] -= 1

        def search_registered_models(self, **_: Any) -> None:
            """Nothing."""

    monkeypatch.setattr(Tracking, "client", Slow())
    threads = [threading.Thread(target=open_tracking, args=(settings,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


@pytest.mark.systems
def test_two_processes_open_an_empty_registry_at_once(tmp_path: Path) -> None:
    environment = {**os.environ, "CACO_HOME": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", OPEN], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said


@pytest.fixture
def busy(settings: Settings) -> Callable[[int], Path]:
    """Says that another DVC command, of a process number, writes the places: as `dvc repro` does while their stage runs."""
    settings.paths.locations.parent.mkdir(parents=True)
    settings.paths.locations.write_text("places")
    DataVersions().commit(settings, "locations")
    settings.paths.locations.unlink()
    settings.paths.locations.write_text("other places")

    def say(pid: int) -> Path:
        lock = settings.home / ".dvc" / "tmp" / "rwlock"
        lock.parent.mkdir(exist_ok=True)
        lock.write_text(json.dumps({"write": {str(settings.paths.locations): {"pid": pid, "cmd": "dvc repro"}}, "read": {}}))
        return lock

    return say


def test_a_commit_waits_for_the_files_of_a_dvc_repro(
    settings: Settings, busy: Callable[[int], Path], logged: Callable[[], list[str]]
) -> None:
    lines, lock = logged(), busy(os.getppid())
    before = locked(settings, "locations")
    threading.Timer(1.0, lock.unlink).start()
    after = DataVersions().commit(settings, "locations")
    assert after != before
    (said,) = [line for line in lines if "another DVC command" in line]
    assert "waiting up to" in said
    assert f"(PID {os.getppid()}): dvc repro" in said


def test_a_commit_that_has_waited_long_enough_ends_in_one_line(
    settings: Settings, busy: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_commit, "LOCK_WAIT_S", 0.1)
    busy(os.getppid())
    with pytest.raises(UserError, match="run the same again when it is done") as ended:
        DataVersions().commit(settings, "locations")
    assert "remove" not in str(ended.value), "the lock of a live process must not be removed"
    assert "\n" not in str(ended.value)


def test_a_run_killed_between_its_creation_and_its_start_is_marked_as_failed(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        demo = instance.create_run_for_job(nothing, tags={IN_PROCESS: "true"})
        launched = instance.create_run_for_job(nothing)
        running = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
        mark_orphans_failed(instance)
        assert instance.get_run_by_id(demo.run_id).status == dg.DagsterRunStatus.FAILURE
        # it may be about to start
        assert mark_never_started(instance) == []
        assert mark_never_started(instance, older_than=timedelta(0)) == [launched.run_id]
        assert instance.get_run_by_id(launched.run_id).status == dg.DagsterRunStatus.FAILURE
        assert instance.get_run_by_id(running.run_id).status == dg.DagsterRunStatus.STARTED
