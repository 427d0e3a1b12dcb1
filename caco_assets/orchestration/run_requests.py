"""Requests for one run of the chain for one vintage, and the reasons against one."""

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

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def retraining(
    settings: Settings,
    profile: Profile,
    vintage: str,
    *,
    run_key: str,
    job_name: str = CHAIN.name,
    superseded: Sequence[str] = (),
    **wishes: Any,
) -> dg.RunRequest:
    """One run of the whole chain, or of its data part, for one vintage.

    Args:
        settings: the profile's.
        profile: of the code location.
        vintage: `YYYY-MM`.
        run_key: two requests of the same key are one run.
        job_name: `chain` or `look`.
        superseded: vintages that no run was started for; they stand in the tags of this one.
        wishes: fields of `Profile` for this run alone.
    """
    others = [other for other in superseded if other != vintage]
    # retried from its beginning: what is made is reused within seconds, and another vintage may have been made here meanwhile
    named = {"vintage": vintage, "profile": settings.profile, RETRY_STRATEGY: "ALL_STEPS"}
    told = {"superseded": ",".join(others)} if others and settings.automation.missed == "latest" else {}
    config = {**profile.model_dump(), **wishes, "vintage": vintage}
    return dg.RunRequest(
        run_key=run_key,
        job_name=job_name,
        run_config={"resources": {"profile": {"config": config}}},
        tags={**shard_range_tags(settings), **named, **told},
    )


def reason_to_skip(settings: Settings, vintage: str, instance: dg.DagsterInstance) -> str | None:
    """Why no run of a vintage is to be started, if so: it is done, here or by another scheduler, or a run of it is on its way."""
    if (done := finished(settings).get(vintage)) is not None:
        return f"vintage {vintage} was retrained at {done.at} by run {done.run_id}: version {done.version}"
    tags = {"vintage": vintage, "profile": settings.profile}
    under_way = instance.get_runs(filters=dg.RunsFilter(job_name=CHAIN.name, tags=tags, statuses=UNDER_WAY), limit=1)
    return f"run {under_way[0].run_id} of vintage {vintage} is {under_way[0].status.value.lower()}" if under_way else None


def last_drift_check(settings: Settings) -> dict[str, Any] | None:
    """What the check of drift said last, whichever run or command asked; see `validation.drift.check_drift`."""
    try:
        return recorded(settings.paths.records, "drift").facts
    except UserError:
        return None
