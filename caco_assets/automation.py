"""The loop that runs itself: the chain as a job, schedules for the next vintage, what follows from drift, a form, a moved alias."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    RETRY_STRATEGY_TAG,
    RUN_KEY_TAG,
)
from pydantic import Field

from caco_assets.core.errors import UserError
from caco_assets.core.products import recorded
from caco_assets.resources.profile import Profile
from caco_assets.resources.tracking import TrackingResource
from caco_assets.sampling.assets import SHARDS, shard_key
from caco_assets.settings import Settings
from caco_assets.vintages import finished, finished_month, missed, note_finished

# The registry is asked this often; judging takes minutes, so a shorter interval would gain nothing.
SENSOR_INTERVAL_S = 60
# A person waits for the run that a form has asked for.
FORM_INTERVAL_S = 15
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.success_hook(required_resource_keys={"profile"})
def note_vintage(context: dg.HookContext) -> None:
    """Once the policy has decided, the vintage of the run counts as retrained."""
    if context.op.name != "champion":
        return
    settings = context.resources.profile.settings()
    event = context.instance.get_latest_materialization_event(dg.AssetKey("champion"))
    shown = event.asset_materialization.metadata if event and event.asset_materialization else {}
    version, passed = (shown[name].value if name in shown else "" for name in ("version", "passed"))
    note_finished(settings, context.run_id, str(version), bool(passed))


# the matrix of tasks and encoders has partitions of its own: its cells follow a version, they are no part of the way to one
CHAIN = dg.define_asset_job(
    "chain",
    dg.AssetSelection.all() - dg.AssetSelection.key_substring("evaluations"),
    description="From places to a decided version: everything.",
    hooks={note_vintage},
)
LOOK = dg.define_asset_job(
    "look",
    dg.AssetSelection.assets("quarantine").upstream(),
    description="From places to a vintage that is compared with the last accepted one: data alone, nothing is trained.",
)


def shard_range_tags(settings: Settings) -> dict[str, str]:
    """Run tags that make one run cover every shard."""
    return {ASSET_PARTITION_RANGE_START_TAG: shard_key(0), ASSET_PARTITION_RANGE_END_TAG: shard_key(settings.shards - 1)}


def announce_shards(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Make the partitions known before a run that covers them is launched."""
    instance.add_dynamic_partitions(str(SHARDS.name), [shard_key(shard) for shard in range(settings.shards)])


def monthly_retraining(settings: Settings) -> dg.ScheduleDefinition:
    """Each month the whole chain for the vintage that has just ended; one run per vintage, whatever is retried or missed."""

    @dg.schedule(
        name="monthly_retraining",
        job=CHAIN,
        cron_schedule=settings.automation.cron,
        execution_timezone=settings.automation.timezone,
        description="Retrains on the vintage of the month that has just ended.",
    )
    def schedule(context: dg.ScheduleEvaluationContext, profile: Profile) -> dg.RunRequest | list[dg.RunRequest] | dg.SkipReason:
        due = finished_month(context.scheduled_execution_time)
        skipped = missed(settings, due)
        wanted = [*skipped, due] if settings.automation.missed == "each" else [due]
        reasons = {vintage: _no_need(settings, vintage, context.instance) for vintage in wanted}
        announce_shards(settings, context.instance)
        requests = [
            retraining(settings, profile, vintage, run_key=f"{settings.profile}-{vintage}", superseded=skipped)
            for vintage, reason in reasons.items()
            if reason is None
        ]
        if not requests:
            return dg.SkipReason("; ".join(reason for reason in reasons.values() if reason))
        return requests[0] if len(requests) == 1 else requests

    return schedule


def looks(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Where the profile wants it, a schedule for the data of the month that has just ended; the sensor `drifted` goes on."""
    cron = settings.automation.look_cron
    if cron is None:
        return []

    @dg.schedule(
        name="look_at_data",
        job=LOOK,
        cron_schedule=cron,
        execution_timezone=settings.automation.timezone,
        # whoever has written a time into the profile wants it
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Fetches the month that has just ended and compares it; trains nothing.",
    )
    def schedule(context: dg.ScheduleEvaluationContext, profile: Profile) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time
        due = finished_month(tick)
        if (reason := _looked(settings, due) or _no_need(settings, due, context.instance)) is not None:
            return dg.SkipReason(reason)
        announce_shards(settings, context.instance)
        return retraining(
            settings, profile, due, run_key=f"look-{settings.profile}-{due}-{tick:%Y-%m-%dT%H:%M}", job_name=LOOK.name
        )

    return [schedule]


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
    named = {"vintage": vintage, "profile": settings.profile, RETRY_STRATEGY_TAG: "ALL_STEPS"}
    told = {"superseded": ",".join(others)} if others and settings.automation.missed == "latest" else {}
    config = {**profile.model_dump(), **wishes, "vintage": vintage}
    return dg.RunRequest(
        run_key=run_key,
        job_name=job_name,
        run_config={"resources": {"profile": {"config": config}}},
        tags={**shard_range_tags(settings), **named, **told},
    )


def _no_need(settings: Settings, vintage: str, instance: dg.DagsterInstance) -> str | None:
    """Why no run of a vintage is to be started, if so: it is done, here or by another scheduler, or a run of it is on its way."""
    if (done := finished(settings).get(vintage)) is not None:
        return f"vintage {vintage} was retrained at {done.at} by run {done.run_id}: version {done.version}"
    tags = {"vintage": vintage, "profile": settings.profile}
    under_way = instance.get_runs(filters=dg.RunsFilter(job_name=CHAIN.name, tags=tags, statuses=UNDER_WAY), limit=1)
    return f"run {under_way[0].run_id} of vintage {vintage} is {under_way[0].status.value.lower()}" if under_way else None


def _last_look(settings: Settings) -> dict[str, Any] | None:
    """What the check of drift said last, whichever run or command asked; see `validation.drift.judge_drift`."""
    try:
        return recorded(settings.paths.records, "drift").facts
    except UserError:
        return None


def _looked(settings: Settings, vintage: str) -> str | None:
    """That a vintage has been looked at, if it was the last."""
    verdict = _last_look(settings)
    if verdict is None or verdict["vintage"] != vintage:
        return None
    return f"vintage {vintage} has been looked at: {'; '.join(verdict['findings']) or 'every rule holds'}"


@dg.sensor(job=CHAIN, minimum_interval_seconds=SENSOR_INTERVAL_S, default_status=dg.DefaultSensorStatus.RUNNING)
def drifted(context: dg.SensorEvaluationContext, profile: Profile) -> dg.RunRequest | dg.SkipReason:
    """Retrains on a vintage whose data has drifted, once a person has accepted it (`automation.retrain_on_drift`)."""
    settings = profile.settings()
    verdict = _last_look(settings)
    if verdict is None or verdict["reference"] is None:
        return dg.SkipReason("no vintage has been compared with an older one yet")
    vintage, key = verdict["vintage"], f"drift-{settings.profile}-{verdict['vintage']}"
    reason = _no_cause(settings, verdict) or _no_need(settings, vintage, context.instance)
    if reason is not None:
        return dg.SkipReason(reason)
    for run in context.instance.get_runs(filters=dg.RunsFilter(tags={RUN_KEY_TAG: key}), limit=1):
        said = f"run {run.run_id} of vintage {vintage}, which has drifted, is {run.status.value.lower()}"
        return dg.SkipReason(f"{said}: see what it says, then launch `retrain`")
    announce_shards(settings, context.instance)
    return retraining(settings, profile, vintage, run_key=key)


def _no_cause(settings: Settings, verdict: dict[str, Any]) -> str | None:
    """Why nothing is to be retrained for the sake of the last vintage that was looked at, if so."""
    vintage, reference, mode = verdict["vintage"], verdict["reference"], settings.automation.retrain_on_drift
    if not verdict["findings"]:
        return f"vintage {vintage} is like {reference}: every rule holds, nothing to retrain for"
    found = f"vintage {vintage} has drifted from {reference}: {'; '.join(verdict['findings'])}"
    if mode == "never":
        return f"{found}; automation.retrain_on_drift is never: launch `retrain` to train on it"
    if mode == "accepted" and not verdict["accepted"]:
        return f"{found}; trained on once a person says that it is right: caco drift --vintage {vintage} --accept REASON"
    return None


class WarmStart(Enum):
    """What training begins with."""

    as_profile = "as_profile"
    champion = "champion"
    none = "none"


class Retraining(dg.Config):
    """One retraining, launched by hand: the form in the launchpad."""

    vintage: str = Field(default="", description="YYYY-MM, a month that is over; empty: the last one.")
    warm_start: WarmStart = Field(
        default=WarmStart.as_profile, description="Begin with the champion's weights (champion), or from scratch (none)."
    )
    epochs: int = Field(default=0, ge=0, description="Of the training; 0: as the profile says.")
    force: bool = Field(default=False, description="Also where the vintage has been retrained, or its month is not over.")
    only_look: bool = Field(default=False, description="Fetch the data and compare it; train only if it has drifted.")

    def wishes(self) -> dict[str, Any]:
        """The fields of `Profile` that it sets."""
        begin = None if self.warm_start is WarmStart.as_profile else self.warm_start.value
        return {"warm_start": begin, "epochs": self.epochs or None, "force": self.force}


@dg.op
def check_request(context: dg.OpExecutionContext, config: Retraining, profile: Profile) -> str:
    """Says in seconds whether the vintage can be made; the run that makes it follows."""
    vintage = config.vintage or finished_month(datetime.now(UTC))
    settings = Profile(**{**profile.model_dump(), **config.wishes(), "vintage": vintage}).settings()
    if not config.force:
        if vintage > finished_month(datetime.now(UTC)):
            raise UserError(f"vintage={vintage}: that month is not over, its imagery is not complete; wait, or set force")
        if (reason := _no_need(settings, vintage, context.instance)) is not None:
            raise UserError(f"{reason}; set force to make it again")
    # the sensor may look in the next month only
    context.instance.add_run_tags(context.run_id, {"vintage": vintage})
    context.log.info(f"vintage {vintage}: the run that makes it is on its way; follow it under Runs, tag vintage={vintage}")
    return vintage


@dg.job(
    description="Retrains on one vintage, or looks at its data: fill in the form in the launchpad; a run of `chain` (or of `look`) "
    "follows within half a minute."
)
def retrain() -> None:
    """One launch is one vintage."""
    check_request()


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[retrain],
    request_jobs=[CHAIN, LOOK],
    minimum_interval_seconds=FORM_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def requested_vintage(context: dg.RunStatusSensorContext, profile: Profile) -> dg.RunRequest:
    """Launches the run that a form has asked for."""
    sent: dict[str, Any] = {**context.dagster_run.run_config}
    form = sent.get("ops", {}).get("check_request", {}).get("config", {})
    config = Retraining(**form)
    settings = profile.settings()
    vintage = context.dagster_run.tags["vintage"]
    announce_shards(settings, context.instance)
    job_name = LOOK.name if config.only_look else CHAIN.name
    key = f"form-{context.dagster_run.run_id}"
    return retraining(settings, profile, vintage, run_key=key, job_name=job_name, **config.wishes())


class Challenger(dg.Config):
    """A registered version to judge."""

    version: str
    """Its number in the registry."""


@dg.op(pool="gpu")
def judge_version(context: dg.OpExecutionContext, config: Challenger, profile: Profile, tracking: TrackingResource) -> None:
    """Scores a registered version that came from elsewhere, and lets the policy decide on it."""
    from caco_assets.registry.stage import judge, release

    settings = profile.settings()
    server = tracking.open(settings)
    if judge(settings, server, config.version, context.log.info).passed:
        release(settings, context.log.info, tracking=server)


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


@dg.op
def release_version(context: dg.OpExecutionContext, profile: Profile, tracking: TrackingResource) -> None:
    """Exports and card of the version that serves, where it has none yet."""
    from caco_assets.registry.stage import release

    settings, say = profile.settings(), context.log.info
    with tracking.patience(say):
        release(settings, say, tracking=tracking.open(settings, say))


@dg.job(description="Releases the version that serves: exports and model card, once per version.")
def release_champion() -> None:
    """One step."""
    release_version()


@dg.sensor(job=release_champion, minimum_interval_seconds=SENSOR_INTERVAL_S, default_status=dg.DefaultSensorStatus.RUNNING)
def alias_moved(context: dg.SensorEvaluationContext, profile: Profile, tracking: TrackingResource) -> dg.RunRequest | dg.SkipReason:
    """Records that a person has moved the champion in MLflow, which is respected; has released what was not, or warns of it."""
    from caco_assets.registry.stage import notice, unreleased

    settings = profile.settings()
    try:
        server = tracking.open(settings)
        found = notice(settings, server, context.log.info)
        deciding = dg.RunsFilter(tags={"profile": settings.profile}, statuses=UNDER_WAY)
        at_work = {run.job_name for run in context.instance.get_runs(filters=deciding)} & {CHAIN.name, judge_challenger.name}
        waiting = unreleased(settings, server, under_way=bool(at_work))
    except UserError as error:
        return dg.SkipReason(str(error))
    for line in found:
        (context.log.warning if line.startswith("WARNING") else context.log.info)(line)
    if waiting is None:
        return dg.SkipReason("; ".join(found) or f"the aliases of {settings.registry.model} are where they were put")
    version, since = waiting
    return dg.RunRequest(
        run_key=f"release-{settings.registry.model}-{version}-{since}",
        tags={"profile": settings.profile, "model_version": version},
    )


JOBS = [CHAIN, LOOK, judge_challenger, release_champion, retrain]
