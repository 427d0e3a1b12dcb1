"""The profile of a code location as a Dagster resource: a name and a home folder, from which the settings are read.

A run that uses it holds the workspace lock (see `workspace_lock.py`): two runs never write the same products at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

from caco_assets.core.errors import UserError
from caco_assets.observability.logs import bind
from caco_assets.resources.dagster.workspace_lock import acquire
from caco_assets.settings import Settings, load_settings

WHOLE_VINTAGE = ("chain", "data_only", "look")
"""Jobs that make a whole vintage: such a run has exclusive use of the workspace. Others (a backfill of shards) share it."""
FIRST_STEP = "locations"
"""The first step of a vintage."""
NO_PRODUCTS = ("judge_challenger", "release_champion", "retrain")
"""Jobs that make no product and need no lock."""


class Profile(dg.ConfigurableResource):
    """Which settings the assets run with."""

    name: str
    """Name of a profile, or path to a YAML file."""
    home: str
    """Home folder: `dvc.yaml`, `mlflow/`, `workspace/`."""
    vintage: str | None = None
    """The vintage of this run, `YYYY-MM`; none: the profile's own."""
    warm_start: str | None = None
    """The training's starting point, `none` or `champion`; unset: the profile's."""
    epochs: int | None = None
    """Training epochs of this run; none: the profile's."""
    force: bool = False
    """Look up the warm-start parent again, even if this vintage has already started."""

    def settings(self) -> Settings:
        """The checked settings.

        Raises:
            UserError: a wrong key or value, or an environment variable contradicts the run.
        """
        training = {"warm_start": self.warm_start, "epochs": self.epochs}
        training = {name: value for name, value in training.items() if value is not None}
        overrides: dict[str, Any] = {"pretraining": training} if training else {}
        if self.vintage is not None:
            overrides["vintage"] = self.vintage
        settings = load_settings(self.name, home=Path(self.home), **overrides)
        # environment variables win over the run, which would then make another vintage than its tags say
        loaded = {"vintage": settings.vintage, **{name: getattr(settings.pretraining, name) for name in training}}
        for name, value in {"vintage": self.vintage, **training}.items():
            if value is not None and loaded[name] != value:
                variable = "CACO_VINTAGE" if name == "vintage" else f"CACO_PRETRAINING__{name.upper()}"
                raise UserError(f"{name}={value}: the environment of the run has {variable}={loaded[name]}; unset it there")
        bind(profile=settings.profile, vintage=settings.vintage)
        return settings

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Lock the workspace for the run until its process ends; schedules and sensors make no products and need no lock.

        There is no teardown: Dagster would then refuse to pass the resource directly to a schedule, a sensor or an op.
        """
        run = context.run
        if run is None or context.instance is None:
            return
        home = Path(context.instance.root_directory)
        exclusive = None if run.job_name in NO_PRODUCTS else run.job_name in WHOLE_VINTAGE
        # retried "from failure" or with selected steps; an in-process run lists all of its steps
        resumed = bool(exclusive) and run.step_keys_to_execute is not None and FIRST_STEP not in run.step_keys_to_execute
        acquire(self.settings(), home, run.run_id, f"run {run.run_id} ({run.job_name})", exclusive=exclusive, resumed=resumed)
