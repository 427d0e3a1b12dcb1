"""Schedules: the monthly retraining and the check of new data."""

import dagster as dg

from caco_assets.orchestration.jobs import CHAIN, DATA_ONLY
from caco_assets.orchestration.run_requests import last_drift_check, reason_to_skip, run_request
from caco_assets.resources.profile import Profile
from caco_assets.resources.vintages import finished_month, missed
from caco_assets.sampling.partitions import announce_shards
from caco_assets.settings import Settings


def monthly_retraining(settings: Settings) -> dg.ScheduleDefinition:
    """Runs the chain each month for the vintage that has just ended; one run per vintage, also after retries and missed ticks."""

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
        reasons = {vintage: reason_to_skip(settings, vintage, context.instance) for vintage in wanted}
        announce_shards(settings, context.instance)
        requests = [
            run_request(settings, profile, vintage, run_key=f"{settings.profile}-{vintage}", superseded=skipped)
            for vintage, reason in reasons.items()
            if reason is None
        ]
        if not requests:
            return dg.SkipReason("; ".join(reason for reason in reasons.values() if reason))
        return requests[0] if len(requests) == 1 else requests

    return schedule


def drift_checks(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedule of the drift check, if the profile has one; the sensor `drifted` acts on its result."""
    cron = settings.automation.drift_check_cron
    if cron is None:
        return []

    @dg.schedule(
        name="check_data",
        job=DATA_ONLY,
        cron_schedule=cron,
        execution_timezone=settings.automation.timezone,
        # setting a time in the profile turns the schedule on
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Fetches the data of the month that has just ended and checks it for drift; trains nothing.",
    )
    def schedule(context: dg.ScheduleEvaluationContext, profile: Profile) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time
        due = finished_month(tick)
        if (reason := _checked(settings, due) or reason_to_skip(settings, due, context.instance)) is not None:
            return dg.SkipReason(reason)
        announce_shards(settings, context.instance)
        key = f"data-{settings.profile}-{due}-{tick:%Y-%m-%dT%H:%M}"
        return run_request(settings, profile, due, run_key=key, job_name=DATA_ONLY.name)

    return [schedule]


def _checked(settings: Settings, vintage: str) -> str | None:
    """The result of the last drift check, if it checked this vintage."""
    verdict = last_drift_check(settings)
    if verdict is None or verdict["vintage"] != vintage:
        return None
    return f"vintage {vintage} has been checked: {'; '.join(verdict['findings']) or 'every rule holds'}"
