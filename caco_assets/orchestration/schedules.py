"""Schedules: the monthly retraining and the check of new data."""

import dagster as dg

from caco_assets.orchestration.jobs import CHAIN, LOOK
from caco_assets.orchestration.run_requests import last_drift_check, reason_to_skip, retraining
from caco_assets.resources.profile import Profile
from caco_assets.resources.vintages import finished_month, missed
from caco_assets.sampling.partitions import announce_shards
from caco_assets.settings import Settings


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
        reasons = {vintage: reason_to_skip(settings, vintage, context.instance) for vintage in wanted}
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
        if (reason := _looked(settings, due) or reason_to_skip(settings, due, context.instance)) is not None:
            return dg.SkipReason(reason)
        announce_shards(settings, context.instance)
        return retraining(
            settings, profile, due, run_key=f"look-{settings.profile}-{due}-{tick:%Y-%m-%dT%H:%M}", job_name=LOOK.name
        )

    return [schedule]


def _looked(settings: Settings, vintage: str) -> str | None:
    """That a vintage has been looked at, if it was the last."""
    verdict = last_drift_check(settings)
    if verdict is None or verdict["vintage"] != vintage:
        return None
    return f"vintage {vintage} has been looked at: {'; '.join(verdict['findings']) or 'every rule holds'}"
