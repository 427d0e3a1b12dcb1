"""Dagster's launcher of runs as processes, which can also tell that such a process has died with its parent.

Dagster notices by itself when a run's process is killed. When the daemon and the web server that started it are killed too, nobody
is left who knows, and the run would be "started" for ever, its pool slots taken. Here the process holds a lock, which goes with it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._core.storage.dagster_run import DagsterRun

from caco_assets.resources.dagster.tags import GRPC_INFO
from caco_assets.resources.dagster.workspace_lock import is_dead, life_sign

_STARTED = "Started process for run (pid: "


class LocalRunLauncher(DefaultRunLauncher):
    """One process for each run, on this machine; named in the `dagster.yaml` that `instance.py` writes."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """As Dagster does; what dead runs have left goes before."""
        self._sweep()
        super().launch_run(context)

    def _sweep(self) -> None:
        """Remove the life signs of processes that were killed, once their runs are known to have ended."""
        home = Path(self._instance.root_directory)
        for file in home.glob("life/*.lock"):
            run = self._instance.get_run_by_id(file.stem)
            if (run is None or run.is_finished) and is_dead(home, file.stem):
                file.unlink(missing_ok=True)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring asks `check_run_worker_health`."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is alive; run monitoring marks the run as failed where it is not, and it is retried."""
        home = Path(self._instance.root_directory)
        if is_dead(home, run.run_id) or (not life_sign(home, run.run_id).exists() and self._gone(run)):
            words = "its process was killed (out of memory, or this machine was stopped); a retry goes on from what is finished"
            return CheckRunHealthResult(WorkerStatus.FAILED, words)
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def _gone(self, run: DagsterRun) -> bool:
        """Before a run's process holds its lock: whether there is no process of that number, where that can be seen from here."""
        if json.loads(run.tags.get(GRPC_INFO, "{}")).get("host", "localhost") != "localhost":
            # a code server of its own, in another container or on another machine: its processes have numbers of their own
            return False
        said = self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        numbers = [entry.message.partition(_STARTED)[2].partition(")")[0] for entry in said if _STARTED in entry.message]
        if not numbers or not numbers[-1].isdigit():
            return False
        try:
            os.kill(int(numbers[-1]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
