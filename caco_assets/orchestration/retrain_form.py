"""The job `retrain`: a form in the launchpad that asks for one vintage."""

from datetime import UTC, datetime
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from caco_assets.core.errors import UserError
from caco_assets.orchestration.jobs import CHAIN, LOOK
from caco_assets.orchestration.run_requests import reason_to_skip, retraining
from caco_assets.resources.profile import Profile
from caco_assets.resources.vintages import finished_month
from caco_assets.sampling.partitions import announce_shards

# A person waits for the run that a form has asked for.
FORM_INTERVAL_S = 15


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
        if (reason := reason_to_skip(settings, vintage, context.instance)) is not None:
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
