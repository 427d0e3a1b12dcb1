"""The job `retrain`: a form in the launchpad that asks for one vintage."""

from datetime import UTC, datetime
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from caco_assets.core.errors import UserError
from caco_assets.orchestration.jobs import CHAIN, DATA_ONLY
from caco_assets.orchestration.run_requests import reason_to_skip, run_request
from caco_assets.resources.profile import Profile
from caco_assets.resources.vintages import finished_month
from caco_assets.sampling.partitions import announce_shards

# A user is waiting for the run that the form has requested.
FORM_INTERVAL_S = 15


class WarmStart(Enum):
    """What training starts from."""

    as_profile = "as_profile"
    champion = "champion"
    none = "none"


class Retraining(dg.Config):
    """One retraining launched by hand: the form in the launchpad."""

    vintage: str = Field(default="", description="YYYY-MM, a month that is over; empty: the last one.")
    warm_start: WarmStart = Field(
        default=WarmStart.as_profile, description="Start from the champion's weights (champion) or from scratch (none)."
    )
    epochs: int = Field(default=0, ge=0, description="Training epochs; 0 uses the profile.")
    force: bool = Field(default=False, description="Retrain even if the vintage has been retrained or its month is not over.")
    data_only: bool = Field(default=False, description="Fetch the data and check it for drift; train only if it has drifted.")
    only_look: bool = Field(default=False, description="Old name of data_only.")

    def overrides(self) -> dict[str, Any]:
        """The fields of `Profile` that the form sets."""
        start = None if self.warm_start is WarmStart.as_profile else self.warm_start.value
        return {"warm_start": start, "epochs": self.epochs or None, "force": self.force}


@dg.op
def check_request(context: dg.OpExecutionContext, config: Retraining, profile: Profile) -> str:
    """Checks within seconds whether the vintage can be made; the sensor then launches the run that makes it."""
    if config.only_look:
        context.log.warning("only_look is now data_only; the old name works until the next release")
    vintage = config.vintage or finished_month(datetime.now(UTC))
    settings = Profile(**{**profile.model_dump(), **config.overrides(), "vintage": vintage}).settings()
    if not config.force:
        if vintage > finished_month(datetime.now(UTC)):
            raise UserError(f"vintage={vintage}: that month is not over, its imagery is not complete; wait, or set force")
        if (reason := reason_to_skip(settings, vintage, context.instance)) is not None:
            raise UserError(f"{reason}; set force to make it again")
    # the sensor may run after the end of this month
    context.instance.add_run_tags(context.run_id, {"vintage": vintage})
    context.log.info(f"vintage {vintage}: its run follows within half a minute; see Runs, tag vintage={vintage}")
    return vintage


@dg.job(
    description="Retrains on one vintage, or checks its data: fill in the form in the launchpad; a run of `chain` or `data_only` "
    "follows within half a minute."
)
def retrain() -> None:
    """One launch requests one vintage."""
    check_request()


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[retrain],
    request_jobs=[CHAIN, DATA_ONLY],
    minimum_interval_seconds=FORM_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def requested_vintage(context: dg.RunStatusSensorContext, profile: Profile) -> dg.RunRequest:
    """Launches the run that a form has requested."""
    sent: dict[str, Any] = {**context.dagster_run.run_config}
    form = sent.get("ops", {}).get("check_request", {}).get("config", {})
    config = Retraining(**form)
    settings = profile.settings()
    vintage = context.dagster_run.tags["vintage"]
    announce_shards(settings, context.instance)
    job_name = DATA_ONLY.name if config.data_only or config.only_look else CHAIN.name
    key = f"form-{context.dagster_run.run_id}"
    return run_request(settings, profile, vintage, run_key=key, job_name=job_name, **config.overrides())
