"""Registered encoders as a Dagster resource, for packages that the registry depends on."""

from __future__ import annotations

import dagster as dg

from caco_assets.downstream.matrix import Version
from caco_assets.resources.mlflow.client import open_tracking
from caco_assets.settings import Settings


class RegisteredEncoders(dg.ConfigurableResource):
    """Versions of the profile's model; see `downstream.matrix.Versions`."""

    def names(self, settings: Settings) -> list[str]:
        """`name/3` of each version, oldest first."""
        from caco_assets.registry.versions import versions

        model = settings.registry.model
        return [f"{model}/{version.version}" for version in versions(open_tracking(settings), model)]

    def load(self, settings: Settings, name: str) -> Version:
        """A version of any model; raises `UserError` if there is none or its files are damaged."""
        from caco_assets.registry.package.mlflow_model import load_version
        from caco_assets.registry.versions import DATA, find

        tracking, uri = open_tracking(settings), f"models:/{name}"
        found = find(tracking, uri)
        data = {tag.removeprefix(DATA): str(value) for tag, value in found.tags.items() if tag.startswith(DATA)}
        return Version(load_version(tracking, found), uri, data)
