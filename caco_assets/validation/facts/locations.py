"""Facts of `locations.parquet`: the position of each place, and its distance from the nearest other one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from caco_assets.sampling.acceptance import acceptance_of
from caco_assets.sampling.land import Mask
from caco_assets.sampling.locations import shards_of
from caco_assets.sampling.sphere import EARTH_RADIUS_KM, unit_vectors
from caco_assets.settings import Settings
from caco_assets.validation.facts.table import Frame, Table, missing_fields, numbers, read_parquet

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

COLUMNS = ("location_id", "lon", "lat", "city", "country", "population", "distance_km", "shard")


def locations(settings: Settings) -> list[Table]:
    """One row per place: its position (`on_land`, `inside_region`, `outside_zones`, `nearest_km`) and how it is stored.

    The latter: `index_gap`, `shard_gap`, `geometry_gap_deg`, `crs`.

    Raises:
        UserError: the product, or a file that the settings of sampling name, is absent or unreadable.
    """
    path, acceptance = settings.paths.locations, acceptance_of(settings)
    frame = read_parquet(path, COLUMNS)
    numbers(frame, ("lon", "lat", "population", "distance_km", "shard"))
    frame["missing_fields"] = missing_fields(frame, COLUMNS)
    frame["location_id"] = frame["location_id"].fillna("").astype(str)
    frame["id"] = frame["location_id"]
    lon, lat = frame["lon"].to_numpy(), frame["lat"].to_numpy()
    on_earth = (np.abs(lon) <= 180) & (np.abs(lat) <= 90)
    frame["on_land"] = _where(acceptance.land, lon, lat, on_earth)
    frame["inside_region"] = acceptance.region.contains(lon, lat)
    frame["outside_zones"] = _where(lambda lon, lat: ~acceptance.zones.touched(lon, lat), lon, lat, on_earth)
    frame["nearest_km"] = nearest_km(lon, lat, on_earth)
    index = frame["location_id"].str.extract(r"^L(\d{7})$")[0].astype("float64").fillna(-1)
    frame["index_gap"] = index - np.arange(len(frame))
    sampling = settings.sampling
    wanted = index // sampling.places_per_shard
    if sampling.shard_by == "nearby" and on_earth.all():
        wanted = shards_of(lon, lat, sampling.places_per_shard, sampling.shard_by)
    frame["shard_gap"] = (frame["shard"] - wanted).fillna(0)
    frame["geometry_gap_deg"] = _geometry_gap(path, lon, lat)
    frame["crs"] = _crs(path)
    return [Table("locations", frame)]


def nearest_km(lon: NDArray[np.float64], lat: NDArray[np.float64], usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Great-circle distance from each place to the nearest other one, in km, by a k-d tree of points on the unit sphere.

    Places that are not `usable` (no position on Earth) and a place alone get half the Earth's circumference: no neighbour.
    """
    from scipy.spatial import KDTree

    result = np.full(len(lon), np.pi * EARTH_RADIUS_KM)
    if usable.sum() < 2:
        return result
    points = unit_vectors(lon[usable], lat[usable])
    chord = KDTree(points).query(points, k=2)[0][:, 1]
    result[usable] = 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0, 1))
    return result


def _where(test: Mask, lon: NDArray[np.float64], lat: NDArray[np.float64], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    good = np.ones(len(lon), dtype=bool)  # a place without a position is reported by other checks
    good[usable] = test(lon[usable], lat[usable])
    return good


def _geometry_gap(path: Path, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees between the point of `geometry` and `lon`, `lat`; 360 if there is no point."""
    import shapely

    geometry: Frame = read_parquet(path, ("geometry",))["geometry"]
    if geometry.isna().all():
        return np.full(len(lon), 360.0)
    points = shapely.from_wkb(geometry.to_numpy(), on_invalid="ignore")
    gap = np.hypot(shapely.get_x(points) - lon, shapely.get_y(points) - lat)
    return np.where(np.isnan(gap) & ~np.isnan(lon) & ~np.isnan(lat), 360.0, np.nan_to_num(gap))


def _crs(path: Path) -> str:
    """Authority and code of the geometry column's reference system; GeoParquet's default is OGC:CRS84."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    if b"geo" not in metadata:
        return "none"
    geo = json.loads(metadata[b"geo"])
    column = geo["columns"].get(geo["primary_column"], {})
    if "crs" not in column:
        return "OGC:CRS84"
    identity = (column["crs"] or {}).get("id", {})
    return f"{identity.get('authority')}:{identity.get('code')}"
