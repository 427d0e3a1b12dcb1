"""A launcher of local run processes that also detects runs whose process died together with its parents.

Dagster itself detects a killed run process. If the daemon and the web server that started it are killed too, nothing
notices, and the run would stay "started" forever with its pool slots taken. Here the process holds a lock until it ends.

Only this module imports from `dagster._core`: launchers have no public base class for health checks. A test names the version that
this was checked with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

from caco_assets.core.processes import is_alive
from caco_assets.resources.dagster.tags import GRPC_INFO
from caco_assets.resources.dagster.workspace_lock import is_orphaned, lock_file

if TYPE_CHECKING:
    from dagster._core.launcher import LaunchRunContext

CHECKED_WITH = "1.13.27"
"""The version of Dagster whose internals this module was last compared with."""


class LocalRunLauncher(dg.DefaultRunLauncher):
    """One process per run on this machine; named in the `dagster.yaml` that `instance.py` writes."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """As Dagster does, after removing the lock files of orphaned runs."""
        self._remove_orphaned_locks()
        super().launch_run(context)

    def _remove_orphaned_locks(self) -> None:
        """Remove the lock files of killed processes whose runs are known to have ended."""
        home = Path(self._instance.root_directory)
        for file in home.glob("life/*.lock"):
            run = self._instance.get_run_by_id(file.stem)
            if (run is None or run.is_finished) and is_orphaned(home, file.stem):
                file.unlink(missing_ok=True)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring calls `check_run_worker_health`."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is alive; if not, run monitoring marks the run as failed, and it is retried."""
        home = Path(self._instance.root_directory)
        if is_orphaned(home, run.run_id) or (not lock_file(home, run.run_id).exists() and self._is_gone(run)):
            words = "its process was killed (out of memory, or this machine was stopped); a retry resumes from what is finished"
            return CheckRunHealthResult(WorkerStatus.FAILED, words)
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def _is_gone(self, run: dg.DagsterRun) -> bool:
        """Whether the process of a run that holds no lock yet is gone, by its process number in the run's events."""
        if json.loads(run.tags.get(GRPC_INFO, "{}")).get("host", "localhost") != "localhost":
            # the code server runs in another container or machine, so its process number means nothing here
            return False
        entries = self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        events = [entry.dagster_event for entry in entries if entry.dagster_event is not None]
        numbers = [event.engine_event_data.metadata["pid"].value for event in events if "pid" in event.engine_event_data.metadata]
        return bool(numbers) and not is_alive(int(str(numbers[-1])))
