"""Settings of schedules and sensors: when the chain runs by itself."""

from __future__ import annotations

from typing import Literal

from caco_assets.settings.frozen import Frozen


class Automation(Frozen):
    """The monthly loop."""

    cron: str = "0 3 1 * *"
    """When the vintage of the month that has just ended is begun."""
    timezone: str = "UTC"
    missed: Literal["latest", "each"] = "latest"
    """After a time without a scheduler: `latest`: the last month alone, whose periods hold the others' too; `each`: all in turn."""
    look_cron: str | None = None
    """When the data of the month that has just ended is fetched and compared, without training; none: by hand alone."""
    retrain_on_drift: Literal["accepted", "always", "never"] = "accepted"
    """A vintage that has drifted is trained on: `accepted`: once a person accepts it; `always`: at once; `never`: by hand alone."""
