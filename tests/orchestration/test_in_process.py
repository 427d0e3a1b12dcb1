"""Runs in this process on a real instance: what a killed one leaves behind, and that there is one at a time."""

import fcntl
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest

from caco_assets.observability import logs
from caco_assets.orchestration.in_process import IN_PROCESS, mark_orphans_failed, materialize
from caco_assets.resources.dagster.console_logger import console
from caco_assets.resources.dagster.instance import dagster_home, open_instance
from caco_assets.settings import Settings


@dg.job
def nothing() -> None:
    pass


def test_a_killed_run_is_marked_failed_and_its_pool_slot_is_free_again(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("concurrency: {pools: {default_limit: 1}}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        killed = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED, tags={IN_PROCESS: "true"})
        other = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default("gpu")
        assert storage.claim_concurrency_slot("gpu", killed.run_id, "encoder").is_claimed
        assert not storage.claim_concurrency_slot("gpu", "next", "encoder").is_claimed

        mark_orphans_failed(instance)
        assert storage.claim_concurrency_slot("gpu", "next", "encoder").is_claimed
        statuses = {run.run_id: run.status for run in instance.get_runs()}
    assert statuses == {killed.run_id: dg.DagsterRunStatus.FAILURE, other.run_id: dg.DagsterRunStatus.STARTED}


def test_a_second_run_in_the_same_workspace_waits_for_the_first_and_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    lines, home = logged(), dagster_home(settings)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    ran: list[object] = []
    monkeypatch.setattr("caco_assets.orchestration.in_process.open_instance", ran.append)
    with (home / "in_process.lock").open("w") as held, ThreadPoolExecutor(1) as thread:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = thread.submit(materialize, nothing, settings)
        with pytest.raises(TimeoutError):
            second.result(0.3)
        assert ran == []
        assert any("another process holds the lock; waiting" in line for line in lines)
        fcntl.flock(held, fcntl.LOCK_UN)
        # what stands in for the instance is none
        with pytest.raises(TypeError):
            second.result(60)
        assert ran == [home]


def test_opening_an_instance_waits_for_another_process(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The web server and the daemon of a new workspace start together: without turns, one of ten starts failed."""
    home = dagster_home(settings)
    monkeypatch.setenv("DAGSTER_HOME", "")
    with (home / "open.lock").open("w") as held, ThreadPoolExecutor(1) as thread:
        fcntl.flock(held, fcntl.LOCK_EX)
        opening = thread.submit(open_instance, home)
        with pytest.raises(TimeoutError):
            opening.result(0.5)
        fcntl.flock(held, fcntl.LOCK_UN)
        opening.result(60).dispose()


@dg.asset
def logging_asset() -> None:
    logging.getLogger("caco_assets.x").info("")
    logging.getLogger("caco_assets.x").info("a line of the package")


def test_lines_of_the_package_stand_in_the_log_of_the_run_and_once_on_stderr(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    definitions = dg.Definitions(
        assets=[logging_asset], jobs=[dg.define_asset_job("chain")], loggers={"console": console}, executor=dg.in_process_executor
    )
    monkeypatch.setattr(logs.PACKAGE, "handlers", [])
    monkeypatch.setattr(logs.PACKAGE, "level", logs.PACKAGE.level)
    logs.log_to_stderr()
    materialize(definitions.resolve_job_def("chain"), settings)
    with open_instance(dagster_home(settings)) as instance:
        (run,) = instance.get_runs()
        lines = [entry.user_message for entry in instance.all_logs(run.run_id)]
    assert lines.count("a line of the package") == 1
    shown = capsys.readouterr().err
    assert shown.count("a line of the package") == 1
    # an empty line is logged as one, not as the prefix of Dagster's message
    assert "chain - " not in shown
