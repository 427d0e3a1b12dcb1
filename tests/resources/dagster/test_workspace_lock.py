"""One run of the whole chain per workspace at a time; runs whose process has died are detected."""

import os
import signal
import subprocess
import sys
import threading

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import DefaultRunLauncher, WorkerStatus

from caco_assets.core.errors import UserError
from caco_assets.resources.dagster import run_launcher
from caco_assets.resources.dagster import workspace_lock as locks
from caco_assets.resources.dagster.instance import dagster_home
from caco_assets.resources.dagster.run_launcher import LocalRunLauncher
from caco_assets.resources.dagster.workspace_lock import heartbeat_lock, is_orphaned, lock_file, workspace_lock
from caco_assets.settings import Settings

HOLDING = """
import sys, time
from pathlib import Path
from caco_assets.resources.dagster.workspace_lock import heartbeat_lock, workspace_lock
from caco_assets.settings import load_settings
settings = load_settings("tiny", home=Path(sys.argv[1]))
with heartbeat_lock(Path(sys.argv[1]), "first"), workspace_lock(settings, "first", "run first (chain)", exclusive=True):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL_S", 0.02)


def test_a_second_run_waits_names_the_holder_and_continues_when_the_first_is_killed(logged, settings: Settings) -> None:
    said = logged()
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(settings.home)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        assert not is_orphaned(settings.home, "first")
        entered = threading.Event()

        def second() -> None:
            with workspace_lock(settings, "second", "run second (chain)", exclusive=True):
                entered.set()

        waiting = threading.Thread(target=second)
        waiting.start()
        assert not entered.wait(0.3)
        assert len(said) == 1
        assert "run first (chain) of vintage 2026-10, process " in said[0]
        first.send_signal(signal.SIGKILL)
        assert entered.wait(30)
        waiting.join()
    assert is_orphaned(settings.home, "first")


def test_single_products_share_a_workspace_of_one_vintage_and_not_of_two(settings: Settings) -> None:
    other = settings.model_copy(update={"vintage": "2026-11"})
    with workspace_lock(settings, "a", "run a", exclusive=False), workspace_lock(settings, "b", "run b", exclusive=False):  # noqa: SIM117
        with pytest.raises(UserError, match=r"vintage=2026-11: run a of vintage 2026-10, process .* makes products in"):
            with workspace_lock(other, "c", "run c", exclusive=False):
                pass
    with workspace_lock(other, "c", "run c", exclusive=False):
        pass


def test_a_run_does_not_resume_with_another_months_products(settings: Settings) -> None:
    other = settings.model_copy(update={"vintage": "2026-11"})
    with workspace_lock(settings, "a", "run a", exclusive=True):
        pass
    with workspace_lock(settings, "a again", "run a again", exclusive=True, resumed=True):
        pass
    with workspace_lock(other, "b", "run b (data_only)", exclusive=True):
        pass
    with (
        pytest.raises(UserError, match=r"the products here are those of 2026-11 by now.*launch the whole vintage"),
        workspace_lock(settings, "a from failure", "run a from failure", exclusive=True, resumed=True),
    ):
        pass


def test_a_run_that_ends_by_itself_never_counts_as_orphaned(settings: Settings) -> None:
    with heartbeat_lock(settings.home, "run"):
        assert not is_orphaned(settings.home, "run")
    assert not lock_file(settings.home, "run").exists()
    assert not is_orphaned(settings.home, "run")


@dg.job
def nothing() -> None:
    pass


def test_run_monitoring_learns_that_the_process_of_a_run_is_gone(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    home = dagster_home(settings)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        launcher = instance.run_launcher
        assert isinstance(launcher, LocalRunLauncher)
        run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
        assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING  # nothing is known of it yet
        with heartbeat_lock(home, run.run_id):
            assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        lock_file(home, run.run_id).touch()
        assert launcher.check_run_worker_health(run).status == WorkerStatus.FAILED
        lock_file(home, run.run_id).unlink()
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        for number, status in ((os.getpid(), WorkerStatus.RUNNING), (gone.pid, WorkerStatus.FAILED)):
            instance.report_engine_event("Started process for run.", run, EngineEventData.in_process(number))
            assert launcher.check_run_worker_health(run).status == status


def test_lock_files_of_killed_runs_are_removed_at_the_next_launch(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    home = dagster_home(settings)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    launched: list[object] = []
    monkeypatch.setattr(DefaultRunLauncher, "launch_run", lambda _, context: launched.append(context))
    with dg.DagsterInstance.get() as instance:
        known, over, busy = (instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED) for _ in range(3))
        instance.report_run_failed(over)
        with heartbeat_lock(home, busy.run_id):
            for run in (known, over):
                lock_file(home, run.run_id).touch()
            instance.run_launcher.launch_run("the next")  # pyright: ignore[reportArgumentType]
            # run monitoring has still to learn of the first from its file
            left = {file.stem for file in lock_file(home, "any").parent.iterdir()}
            assert left == {known.run_id, busy.run_id}
    assert launched == ["the next"]


def test_the_launcher_was_checked_with_the_installed_dagster() -> None:
    """After an upgrade compare `run_launcher.py` with dagster's `DefaultRunLauncher` and run monitoring, then raise the version."""
    assert dg.__version__ == run_launcher.CHECKED_WITH


def test_a_dagster_yaml_that_was_edited_stays_and_one_of_an_earlier_version_does_not(settings: Settings) -> None:
    config = dagster_home(settings) / "dagster.yaml"
    assert "LocalRunLauncher" in config.read_text()
    config.write_text("telemetry: {enabled: false}\n")
    assert (dagster_home(settings) / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"
    earlier = (
        "# Written by caco_assets; state of this workspace alone.\ntelemetry:\n  enabled: false\nnux:\n  enabled: false\n"
        "concurrency:\n  runs:\n    max_concurrent_runs: 1\n  pools:\n    default_limit: 1\nrun_monitoring:\n  enabled: true\n"
        "  start_timeout_seconds: 300\nrun_retries:\n  enabled: true\n  max_retries: 1\n"
    )
    config.write_text(earlier)
    assert "LocalRunLauncher" in (dagster_home(settings) / "dagster.yaml").read_text()
