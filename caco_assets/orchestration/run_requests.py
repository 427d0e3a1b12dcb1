"""Run requests for one vintage, and reasons not to start one."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from caco_assets.core.errors import UserError
from caco_assets.core.products import recorded
from caco_assets.orchestration.jobs import CHAIN
from caco_assets.resources.dagster.tags import RETRY_STRATEGY
from caco_assets.resources.profile import Profile
from caco_assets.resources.vintages import finished
from caco_assets.sampling.partitions import shard_range_tags
from caco_assets.settings import Settings

ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def run_request(
    settings: Settings,
    profile: Profile,
    vintage: str,
    *,
    run_key: str,
    job_name: str = CHAIN.name,
    superseded: Sequence[str] = (),
    **overrides: Any,
) -> dg.RunRequest:
    """Request a run of the whole chain, or of its data part, for one vintage.

    Args:
        settings: of the profile.
        profile: of the code location.
        vintage: `YYYY-MM`.
        run_key: two requests with the same key start one run.
        job_name: `chain` or `data_only`.
        superseded: missed vintages that get no run of their own; recorded in the tags of this one.
        overrides: fields of `Profile` for this run only.
    """
    others = [other for other in superseded if other != vintage]
    # retry from the start: finished products are reused within seconds, and another vintage may have been made here meanwhile
    named = {"vintage": vintage, "profile": settings.profile, RETRY_STRATEGY: "ALL_STEPS"}
    missed = {"superseded": ",".join(others)} if others and settings.automation.missed == "latest" else {}
    config = {**profile.model_dump(), **overrides, "vintage": vintage}
    return dg.RunRequest(
        run_key=run_key,
        job_name=job_name,
        run_config={"resources": {"profile": {"config": config}}},
        tags={**shard_range_tags(settings), **named, **missed},
    )


def reason_to_skip(settings: Settings, vintage: str, instance: dg.DagsterInstance) -> str | None:
    """Why no run of a vintage should start, if so: it was retrained, here or by another scheduler, or a run is in progress."""
    if (done := finished(settings).get(vintage)) is not None:
        return f"vintage {vintage} was retrained at {done.at} by run {done.run_id}: version {done.version}"
    tags = {"vintage": vintage, "profile": settings.profile}
    active = instance.get_runs(filters=dg.RunsFilter(job_name=CHAIN.name, tags=tags, statuses=ACTIVE), limit=1)
    return f"run {active[0].run_id} of vintage {vintage} is {active[0].status.value.lower()}" if active else None


def last_drift_check(settings: Settings) -> dict[str, Any] | None:
    """The last drift check of this workspace, by any run or command; None if there is none."""
    try:
        return recorded(settings.paths.records, "drift").facts
    except UserError:
        return None
