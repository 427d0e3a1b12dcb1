"""Runs a job in this process, on the workspace's own Dagster instance, so that the UI shows it."""

from __future__ import annotations

import logging
import uuid

import dagster as dg

from caco_assets.core.errors import UserError, chain, one_line, storage_error
from caco_assets.core.file_lock import file_lock
from caco_assets.observability.logs import not_on_stderr
from caco_assets.resources.dagster.instance import dagster_home, open_instance
from caco_assets.resources.dagster.tags import MAX_RETRIES
from caco_assets.resources.dagster.workspace_lock import release
from caco_assets.sampling.partitions import announce_shards, shard_range_tags
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)

IN_PROCESS = "caco/in_process"
"""Tag of runs executed in the process that started them."""


def materialize(chain: dg.JobDefinition, settings: Settings) -> None:
    """Run a job over every shard in this process; unchanged products are reused, interrupted ones resume.

    A second such run in the workspace waits for the first, and logs that it does.

    Raises:
        UserError: a step failed for a reason the user can fix, or a
            blocking check failed.
    """
    home = dagster_home(settings)
    # Dagster captures the log lines, and its console shows them
    lock = settings.paths.workspace / "dagster" / "in_process.lock"
    with file_lock(lock, f"run in {settings.paths.workspace}"), open_instance(home) as instance, not_on_stderr():
        mark_orphans_failed(instance)
        announce_shards(settings, instance)
        run_id = str(uuid.uuid4())
        try:
            result = chain.execute_in_process(
                instance=instance,
                run_id=run_id,
                run_config={"loggers": {"console": {"config": {}}}},
                # only its own process can run it again
                tags={**shard_range_tags(settings), "profile": settings.profile, IN_PROCESS: "true", MAX_RETRIES: "0"},
            )
        except Exception as error:
            plain = _user_error(error) or _failed_check(instance, run_id)
            if plain is not None:
                raise plain from error
            raise
        finally:
            release(settings.paths.root)
        if not result.success:
            other = UserError(f"run {run_id}: failed; `make up` shows it in the Dagster UI")
            raise _failed_check(instance, run_id) or other


def mark_orphans_failed(instance: dg.DagsterInstance) -> None:
    """Mark runs whose process was killed as failed and free their pool slots, on which later runs would wait forever.

    Call it only while no such run can be active, as `materialize` does, which holds the lock.
    """
    # a run is created before it starts: its process may have been killed in between
    active = [
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=active, tags={IN_PROCESS: "true"})):
        instance.report_run_failed(run, message="The process of this run was killed; run the same command again, it resumes.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _user_error(error: BaseException) -> UserError | None:
    """The `UserError` that Dagster has wrapped, or one line on a full or closed disk; None for any other error."""
    wrapped = next((each for each in chain(error) if isinstance(each, UserError)), None)
    return wrapped or storage_error(error)


def _failed_check(instance: dg.DagsterInstance, run_id: str) -> UserError | None:
    """The blocking check that stopped a run, on one line; None if none did or the instance cannot be read."""
    try:
        entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    # the error of the run itself is what the caller shows then
    except Exception:
        logger.debug("the checks of the run cannot be read", exc_info=True)
        return None
    for entry in entries:
        check = entry.get_dagster_event().asset_check_evaluation_data
        if not check.passed and check.blocking and check.severity == dg.AssetCheckSeverity.ERROR:
            name = f"check {check.check_name} of {check.asset_key.to_user_string()}"
            return UserError(f"{name}: {one_line(check.description or 'failed')}; `make up` shows its table in the Dagster UI")
    return None
