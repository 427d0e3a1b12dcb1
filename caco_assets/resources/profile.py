"""The profile of a code location as a Dagster resource: a name and a home folder; the settings are read from them."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from caco_assets.settings import Settings, load_settings


class Profile(dg.ConfigurableResource):
    """Which settings the assets run with."""

    name: str
    """Name of a profile, or path to a YAML file."""
    home: str
    """Home folder: `dvc.yaml`, `mlflow/`, `workspace/`."""
    vintage: str | None = None
    """The vintage of this run, `YYYY-MM`; none: the profile's own."""

    def settings(self) -> Settings:
        """The checked settings; raises `UserError` for a wrong key or value."""
        overrides = {} if self.vintage is None else {"vintage": self.vintage}
        return load_settings(self.name, home=Path(self.home), **overrides)
