"""Sensors: drifted data, unscored versions, and aliases moved by hand."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from caco_assets.core.errors import UserError
from caco_assets.observability.logs import log_to
from caco_assets.orchestration.jobs import CHAIN, judge_challenger, release_champion
from caco_assets.orchestration.run_requests import ACTIVE, last_drift_check, reason_to_skip, run_request
from caco_assets.resources.dagster.tags import RUN_KEY
from caco_assets.resources.mlflow.resource import TrackingResource
from caco_assets.resources.profile import Profile
from caco_assets.sampling.partitions import announce_shards
from caco_assets.settings import Settings

# Scoring takes minutes, so asking the registry more often would gain nothing.
SENSOR_INTERVAL_S = 60


@dg.sensor(job=CHAIN, minimum_interval_seconds=SENSOR_INTERVAL_S, default_status=dg.DefaultSensorStatus.RUNNING)
def drifted(context: dg.SensorEvaluationContext, profile: Profile) -> dg.RunRequest | dg.SkipReason:
    """Retrains on a drifted vintage once a person has accepted it (`automation.retrain_on_drift`)."""
    settings = profile.settings()
    verdict = last_drift_check(settings)
    if verdict is None or verdict["reference"] is None:
        return dg.SkipReason("no vintage has been compared with an older one yet")
    vintage, key = verdict["vintage"], f"drift-{settings.profile}-{verdict['vintage']}"
    reason = _no_cause(settings, verdict) or reason_to_skip(settings, vintage, context.instance)
    if reason is not None:
        return dg.SkipReason(reason)
    for run in context.instance.get_runs(filters=dg.RunsFilter(tags={RUN_KEY: key}), limit=1):
        state = f"run {run.run_id} of vintage {vintage}, which has drifted, is {run.status.value.lower()}"
        return dg.SkipReason(f"{state}: read its log, then launch `retrain`")
    announce_shards(settings, context.instance)
    return run_request(settings, profile, vintage, run_key=key)


def _no_cause(settings: Settings, verdict: dict[str, Any]) -> str | None:
    """Why the last drift check does not call for retraining, if so."""
    vintage, reference, mode = verdict["vintage"], verdict["reference"], settings.automation.retrain_on_drift
    if not verdict["findings"]:
        return f"vintage {vintage} is like {reference}: every rule holds, no need to retrain"
    found = f"vintage {vintage} has drifted from {reference}: {'; '.join(verdict['findings'])}"
    if mode == "never":
        return f"{found}; automation.retrain_on_drift is never: launch `retrain` to train on it"
    if mode == "accepted" and not verdict["accepted"]:
        return f"{found}; accept it to train on it: caco drift --vintage {vintage} --accept REASON"
    return None


@dg.sensor(job=judge_challenger, minimum_interval_seconds=SENSOR_INTERVAL_S)
def unscored_challenger(
    context: dg.SensorEvaluationContext, profile: Profile, tracking: TrackingResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Requests scores for every registered version that has none."""
    from caco_assets.registry.versions import unscored

    settings = profile.settings()
    with log_to(context.log.log, this_thread=True):
        waiting = unscored(tracking.open(settings), settings.registry.model)
    if not waiting:
        yield dg.SkipReason(f"every version of {settings.registry.model} is scored")
    for version in waiting:
        yield dg.RunRequest(
            run_key=f"{settings.registry.model}-{version}",
            run_config={"ops": {"judge_version": {"config": {"version": str(version)}}}},
            tags={"profile": settings.profile, "model_version": str(version)},
        )


@dg.sensor(job=release_champion, minimum_interval_seconds=SENSOR_INTERVAL_S, default_status=dg.DefaultSensorStatus.RUNNING)
def alias_moved(context: dg.SensorEvaluationContext, profile: Profile, tracking: TrackingResource) -> dg.RunRequest | dg.SkipReason:
    """Records moves of the champion alias made by hand in MLflow, and requests a release of a serving version that has none."""
    from caco_assets.registry.aliases.manual_moves import check_aliases
    from caco_assets.registry.release.release import unreleased_champion

    settings = profile.settings()
    try:
        # the registry's log lines appear in the log of this tick
        with log_to(context.log.log, this_thread=True):
            server = tracking.open(settings)
            manual = check_aliases(settings, server)
            active = context.instance.get_runs(filters=dg.RunsFilter(tags={"profile": settings.profile}, statuses=ACTIVE))
            deciding = {run.job_name for run in active} & {CHAIN.name, judge_challenger.name}
            waiting = unreleased_champion(settings, server, deciding=bool(deciding))
    except UserError as error:
        return dg.SkipReason(str(error))
    if waiting is None:
        return dg.SkipReason(manual.text if manual else f"no alias of {settings.registry.model} has moved")
    version, since = waiting
    return dg.RunRequest(
        run_key=f"release-{settings.registry.model}-{version}-{since}",
        tags={"profile": settings.profile, "model_version": version},
    )
