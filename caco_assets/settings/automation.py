"""Settings of schedules and sensors, which run the chain automatically."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from caco_assets.settings.frozen import Frozen


class Automation(Frozen):
    """Schedules and triggers of vintages."""

    cron: str = "0 3 1 * *"
    """When the chain starts for the vintage of the month that has just ended."""
    timezone: str = "UTC"
    missed: Literal["latest", "each"] = "latest"
    """After scheduler downtime: `latest`: only the last month, whose periods cover the others; `each`: all months in turn."""
    drift_check_cron: str | None = Field(default=None, serialization_alias="look_cron")
    """When the data of the month that has just ended is fetched and checked for drift, without training; none: only manually."""
    retrain_on_drift: Literal["accepted", "always", "never"] = "accepted"
    """When to train on a drifted vintage: `accepted`: once a person accepts it; `always`: at once; `never`: only manually."""
