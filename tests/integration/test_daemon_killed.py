"""Everything is killed in the middle of a run: after a restart the run is known to be dead, its slot is free, and it is retried."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from caco_assets.resources.dagster.instance import dagster_home
from caco_assets.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.systems]

LOCATION = """
import os, time
from pathlib import Path
import dagster as dg
from caco_assets.resources.profile import Profile

HOME = Path(os.environ["CACO_HOME"])

@dg.asset(pool="gpu")
def encoder(context: dg.AssetExecutionContext, profile: Profile) -> None:
    with (HOME / "attempts").open("a") as attempts:
        attempts.write(context.run_id + "\\n")
    if len((HOME / "attempts").read_text().split()) == 1:
        time.sleep(600)

defs = dg.Definitions(
    assets=[encoder],
    jobs=[dg.define_asset_job("chain", [encoder])],
    resources={"profile": Profile(name="tiny", home=str(HOME))},
    executor=dg.in_process_executor,
)
"""


def test_a_run_killed_together_with_its_daemon_is_noticed_and_retried(settings: Settings) -> None:
    home = dagster_home(settings)
    config = home / "dagster.yaml"
    hasty = config.read_text().replace("poll_interval_seconds: 30", "poll_interval_seconds: 1")
    config.write_text(hasty.replace("free_slots_after_run_end_seconds: 60", "free_slots_after_run_end_seconds: 1"))
    location, attempts = settings.home / "location.py", settings.home / "attempts"
    location.write_text(LOCATION)
    environment = {**os.environ, "DAGSTER_HOME": str(home), "CACO_HOME": str(settings.home)}
    log = (settings.home / "daemon.log").open("w")

    def daemon() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dagster._daemon", "run", "-f", str(location)]
        return subprocess.Popen(command, env=environment, cwd=settings.home, stdout=log, stderr=log, start_new_session=True)

    def runs() -> list[dg.DagsterRun]:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            return sorted((instance.get_runs()), key=lambda run: "dagster/parent_run_id" in run.tags)

    launch = [str(Path(sys.executable).with_name("dagster")), "job", "launch", "-f", str(location), "-j", "chain"]
    subprocess.run(launch, env=environment, cwd=settings.home, check=True, capture_output=True)
    process = daemon()
    try:
        _until(attempts.exists)
        os.killpg(process.pid, signal.SIGKILL)  # the daemon, its code server, the run
        process.wait()
        assert [run.status for run in runs()] == [dg.DagsterRunStatus.STARTED]
        process = daemon()
        _until(lambda: len(runs()) == 2 and runs()[1].status == dg.DagsterRunStatus.SUCCESS)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()
    first, second = runs()
    assert first.status == dg.DagsterRunStatus.FAILURE
    assert second.tags["dagster/parent_run_id"] == first.run_id
    assert attempts.read_text().split() == [first.run_id, second.run_id]  # none lost, none doubled
    with dg.DagsterInstance.from_config(str(home)) as instance:
        said = [entry.message for entry in instance.all_logs(first.run_id)]
    assert any("its process was killed" in line for line in said)


def _until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not there():
        assert time.monotonic() < deadline
        time.sleep(1)
