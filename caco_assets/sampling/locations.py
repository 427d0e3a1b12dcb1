"""The format of `locations.parquet`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caco_assets.core.products import Facts
from caco_assets.sampling.gazetteer import Cities
from caco_assets.sampling.sampler import REJECTIONS, Places


def location_id(index: int) -> str:
    """Stable name of the place that was accepted as number `index` (from 0)."""
    return f"L{index:07d}"


def shards_of(lon: NDArray[np.float64], lat: NDArray[np.float64], places_per_shard: int, shard_by: str) -> NDArray[np.int32]:
    """Shard of each place: places in order of acceptance or along a curve that keeps neighbors together.

    Args:
        lon: degrees, in order of acceptance.
        lat: degrees.
        places_per_shard: size of every shard but the last.
        shard_by: `arrival` or `nearby` (Hilbert's curve over the whole Earth).
    """
    turn = np.arange(len(lon))
    if shard_by == "nearby":
        import geopandas as gpd

        curve = gpd.GeoSeries.from_xy(lon, lat).hilbert_distance(total_bounds=(-180, -90, 180, 90))
        turn[np.argsort(curve.to_numpy(), kind="stable")] = np.arange(len(lon))
    return (turn // places_per_shard).astype(np.int32)


def write_locations(path: Path, places: Places, cities: Cities, shard: NDArray[np.int32]) -> Facts:
    """Write the places as GeoParquet in order of acceptance; returns the facts of the product."""
    import geopandas as gpd

    count = len(places.lon)
    city = places.city_index
    frame = gpd.GeoDataFrame(
        {
            "location_id": [location_id(index) for index in range(count)],
            "lon": places.lon,
            "lat": places.lat,
            "city": cities.city[city],
            "city_id": cities.city_id[city],
            "country": cities.country[city],
            "population": cities.population[city],
            "distance_km": np.round(places.distance_km, 3),
            "shard": shard,
        },
        geometry=gpd.points_from_xy(places.lon, places.lat),
        crs="EPSG:4326",
    )
    frame.to_parquet(path, index=False, compression="zstd")
    return {
        "places": count,
        "shards": int(shard.max()) + 1,
        "cities": len(np.unique(city)),
        "countries": len(set(cities.country[city])),
        "drawn": places.counts["drawn"],
        **{f"rejected_{reason}": places.counts[reason] for reason in REJECTIONS},
    }
