"""Runs a job in this process, on the workspace's own Dagster instance, so that the UI shows it."""

from __future__ import annotations

import dagster as dg

from caco_assets.core.errors import UserError, chain, storage_error
from caco_assets.core.file_lock import file_lock
from caco_assets.observability.logs import not_on_stderr
from caco_assets.resources.dagster.instance import dagster_home, open_instance
from caco_assets.resources.dagster.workspace_lock import release
from caco_assets.sampling.partitions import announce_shards, shard_range_tags
from caco_assets.settings import Settings

IN_PROCESS = "caco/in_process"
"""Tag of runs executed in the process that started them."""


def materialize(chain: dg.JobDefinition, settings: Settings) -> None:
    """Run a job over every shard in this process; unchanged products are reused, interrupted ones resume.

    Raises:
        UserError: another such run is active in the workspace, a step failed for a reason the user can fix, or a
            blocking check failed.
    """
    home = dagster_home(settings)
    # Dagster captures the log lines, and its console shows them
    lock = settings.paths.workspace / "dagster" / "in_process.lock"
    with file_lock(lock, f"run in {settings.paths.workspace}", wait_s=0), open_instance(home) as instance, not_on_stderr():
        mark_orphans_failed(instance)
        announce_shards(settings, instance)
        try:
            result = chain.execute_in_process(
                instance=instance,
                run_config={"loggers": {"console": {"config": {}}}},
                tags={**shard_range_tags(settings), "profile": settings.profile, IN_PROCESS: "true"},
            )
        except Exception as error:
            if (plain := _user_error(error)) is not None:
                raise plain from error
            raise
        finally:
            release(settings.paths.root)
    if not result.success:
        raise UserError(_failed_checks(result))


def mark_orphans_failed(instance: dg.DagsterInstance) -> None:
    """Mark runs whose process was killed as failed and free their pool slots, on which later runs would wait forever.

    Call it only while no such run can be active, as `materialize` does, which holds the lock.
    """
    active = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=active, tags={IN_PROCESS: "true"})):
        instance.report_run_failed(run, message="The process of this run was killed; run the same command again, it resumes.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _user_error(error: BaseException) -> UserError | None:
    """The `UserError` that Dagster has wrapped, or one line on a full or closed disk; None for any other error."""
    wrapped = next((each for each in chain(error) if isinstance(each, UserError)), None)
    return wrapped or storage_error(error)


def _failed_checks(result: dg.ExecuteInProcessResult) -> str:
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    if not failed:
        return f"run {result.run_id}: failed; `make up` shows it in the Dagster UI"
    first = failed[0]
    return f"check {first.check_name} of {first.asset_key.to_user_string()}: {first.description}"
