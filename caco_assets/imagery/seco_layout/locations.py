"""Writes `locations.parquet` for the places of an imported set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts
from caco_assets.imagery.seco_layout.layout import PlaceFolder

CITIES = 10_000
"""Number of cities, as in SeCo and CACo; a place belongs to the nearest of them."""


def write_places(path: Path, places: Iterable[tuple[PlaceFolder, float, float]], places_per_shard: int, shards: int) -> Facts:
    """Write the places (folder, lon, lat) in the order of their numbers, each in the shard of its number.

    Raises:
        UserError: there is none.
    """
    import geopandas as gpd
    from scipy.spatial import KDTree

    from caco_assets.sampling.gazetteer import most_populous
    from caco_assets.sampling.sphere import distance_km, unit_vectors

    found = list(places)
    if not found:
        raise UserError("none of the places has a date with a usable georeference; see imagery.bands, chip_size and resolution")
    lon, lat = (np.array([entry[column] for entry in found], np.float64) for column in (1, 2))
    cities = most_populous(CITIES)
    city = np.asarray(KDTree(unit_vectors(cities.lon, cities.lat)).query(unit_vectors(lon, lat))[1], np.int64)
    frame = gpd.GeoDataFrame(
        {
            "location_id": [place.location_id for place, _, _ in found],
            "lon": lon,
            "lat": lat,
            "city": cities.city[city],
            "city_id": cities.city_id[city],
            "country": cities.country[city],
            "population": cities.population[city],
            "distance_km": np.round(distance_km(cities.lon[city], cities.lat[city], lon, lat), 3),
            "shard": np.array([place.number // places_per_shard for place, _, _ in found], np.int32),
        },
        geometry=gpd.points_from_xy(lon, lat),
        crs="EPSG:4326",
    )
    frame.to_parquet(path, index=False, compression="zstd")
    kinds = {"cities": len(np.unique(city)), "countries": len(set(cities.country[city]))}
    return {"places": len(found), "shards": shards, **kinds}
