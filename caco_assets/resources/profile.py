"""The profile of a code location as a Dagster resource: a name and a home folder; the settings are read from them.

While a run uses it, the run holds its place in the workspace (see `turn.py`): two never write the same products at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

from caco_assets.core.errors import UserError
from caco_assets.observability.logs import bind
from caco_assets.resources.dagster.workspace_lock import hold
from caco_assets.settings import Settings, load_settings

WHOLE_VINTAGE = ("chain", "data_only", "look")
"""Jobs that make a whole vintage: such a run has its workspace to itself. Others (a backfill of shards) share it."""
FIRST = "locations"
"""The step that a vintage begins with."""
MAKE_NOTHING = ("judge_challenger", "release_champion", "retrain")
"""Jobs that make no product: they disturb nobody."""


class Profile(dg.ConfigurableResource):
    """Which settings the assets run with."""

    name: str
    """Name of a profile, or path to a YAML file."""
    home: str
    """Home folder: `dvc.yaml`, `mlflow/`, `workspace/`."""
    vintage: str | None = None
    """The vintage of this run, `YYYY-MM`; none: the profile's own."""
    warm_start: str | None = None
    """What this run's training begins with, `none` or `champion`; none: as the profile says."""
    epochs: int | None = None
    """Epochs of this run's training; none: as the profile says."""
    force: bool = False
    """Look up again what training begins with, though this vintage has begun already."""

    def settings(self) -> Settings:
        """The checked settings.

        Raises:
            UserError: a wrong key or value, or the environment says otherwise than the run.
        """
        training = {"warm_start": self.warm_start, "epochs": self.epochs}
        wanted = {name: value for name, value in training.items() if value is not None}
        overrides: dict[str, Any] = {"pretraining": wanted} if wanted else {}
        if self.vintage is not None:
            overrides["vintage"] = self.vintage
        settings = load_settings(self.name, home=Path(self.home), **overrides)
        # a variable of the environment wins over everything else: a run would make another vintage than its name says
        given = {"vintage": settings.vintage, **{name: getattr(settings.pretraining, name) for name in wanted}}
        for name, value in {"vintage": self.vintage, **wanted}.items():
            if value is not None and given[name] != value:
                variable = "CACO_VINTAGE" if name == "vintage" else f"CACO_PRETRAINING__{name.upper()}"
                raise UserError(f"{name}={value}: the environment of the run has {variable}={given[name]}; unset it there")
        bind(profile=settings.profile, vintage=settings.vintage)
        return settings

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Take the run's place until its process ends; a schedule or a sensor, which makes nothing, needs none.

        There is no teardown: a resource with one can no longer be handed to a schedule, a sensor or an op by a caller.
        """
        run = context.run
        if run is None or context.instance is None:
            return
        home = Path(context.instance.root_directory)
        whole = None if run.job_name in MAKE_NOTHING else run.job_name in WHOLE_VINTAGE
        # "from failure", or a choice of steps; a run in this process names all of its own
        part = bool(whole) and run.step_keys_to_execute is not None and FIRST not in run.step_keys_to_execute
        hold(self.settings(), home, run.run_id, f"run {run.run_id} ({run.job_name})", whole=whole, part=part)
