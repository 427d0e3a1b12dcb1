"""Ends runs that a killed process created but did not start: nothing else would, and the UI would show them as pending forever."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import dagster as dg

logger = logging.getLogger(__name__)

PATIENCE = timedelta(minutes=10)
"""A run is created and then queued at once; the machine may be busy."""


def mark_never_started(instance: dg.DagsterInstance, older_than: timedelta = PATIENCE) -> list[str]:
    """Mark runs as failed that were created some time ago and neither queued nor started; returns their ids."""
    before = datetime.now(UTC) - older_than
    waiting = dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED], created_before=before)
    runs = instance.get_runs(filters=waiting)
    for run in runs:
        logger.info(
            f"run {run.run_id} ({run.job_name}): was created by a process that was killed, and never started; marked as failed"
        )
        instance.report_run_failed(run, message="Its process was killed before it started; launch it again.")
    return [run.run_id for run in runs]
