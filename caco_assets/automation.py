"""The loop that runs itself: the chain as a job, a monthly schedule for the next vintage, a sensor for new challengers."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from caco_assets.resources.profile import Profile
from caco_assets.resources.tracking import TrackingResource
from caco_assets.sampling.assets import SHARDS, shard_key
from caco_assets.settings import Settings

# The registry is asked this often; judging takes minutes, so a shorter interval would gain nothing.
SENSOR_INTERVAL_S = 60

CHAIN = dg.define_asset_job("chain", dg.AssetSelection.all(), description="From places to a decided version: everything.")


def shard_range_tags(settings: Settings) -> dict[str, str]:
    """Run tags that make one run cover every shard."""
    return {ASSET_PARTITION_RANGE_START_TAG: shard_key(0), ASSET_PARTITION_RANGE_END_TAG: shard_key(settings.shards - 1)}


def announce_shards(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Make the partitions known before a run that covers them is launched."""
    instance.add_dynamic_partitions(str(SHARDS.name), [shard_key(shard) for shard in range(settings.shards)])


def finished_month(moment: datetime) -> str:
    """The last month that is over at `moment`: the vintage that can be made now."""
    return f"{moment.replace(day=1) - timedelta(days=1):%Y-%m}"


def monthly_retraining(settings: Settings) -> dg.ScheduleDefinition:
    """Each month the whole chain for the vintage that has just ended; one run per vintage, whatever is retried or missed."""

    @dg.schedule(
        name="monthly_retraining",
        job=CHAIN,
        cron_schedule=settings.automation.cron,
        execution_timezone=settings.automation.timezone,
        description="Retrains on the vintage of the month that has just ended.",
    )
    def schedule(context: dg.ScheduleEvaluationContext, profile: Profile) -> dg.RunRequest:
        vintage = finished_month(context.scheduled_execution_time)
        announce_shards(settings, context.instance)
        return dg.RunRequest(
            run_key=f"{settings.profile}-{vintage}",
            run_config={"resources": {"profile": {"config": {**profile.model_dump(), "vintage": vintage}}}},
            tags={**shard_range_tags(settings), "vintage": vintage, "profile": settings.profile},
        )

    return schedule


class Challenger(dg.Config):
    """A registered version to judge."""

    version: str
    """Its number in the registry."""


@dg.op
def judge_version(context: dg.OpExecutionContext, config: Challenger, profile: Profile, tracking: TrackingResource) -> None:
    """Scores a registered version that came from elsewhere, and lets the policy decide on it."""
    from caco_assets.registry.stage import judge

    decision = judge(profile.settings(), tracking.open(profile.settings()), config.version, context.log.info)
    context.log.info(decision.text())


@dg.job(description="Scores one registered version and lets the promotion policy decide on it.")
def judge_challenger() -> None:
    """One step: a version is scored and decided on together."""
    judge_version()


@dg.sensor(job=judge_challenger, minimum_interval_seconds=SENSOR_INTERVAL_S)
def unscored_challenger(profile: Profile, tracking: TrackingResource) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Asks for a judgement of every registered version that has no scores yet."""
    from caco_assets.registry.versions import unscored

    settings = profile.settings()
    waiting = unscored(tracking.open(settings), settings.registry.model)
    if not waiting:
        yield dg.SkipReason(f"every version of {settings.registry.model} has its scores")
    for version in waiting:
        yield dg.RunRequest(
            run_key=f"{settings.registry.model}-{version}",
            run_config={"ops": {"judge_version": {"config": {"version": str(version)}}}},
            tags={"profile": settings.profile, "model_version": str(version)},
        )


JOBS = [CHAIN, judge_challenger]
