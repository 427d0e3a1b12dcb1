"""The format of `locations.parquet`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caco_assets.products import Facts
from caco_assets.sampling.gazetteer import Cities
from caco_assets.sampling.sampler import REJECTIONS, Places


def location_id(index: int) -> str:
    """Stable name of the place that was accepted as number `index` (from 0)."""
    return f"L{index:07d}"


def write_locations(path: Path, places: Places, cities: Cities, places_per_shard: int) -> Facts:
    """Write the places as GeoParquet in order of acceptance; returns the facts of the product."""
    import geopandas as gpd

    count = len(places.lon)
    city = places.city_index
    shard = (np.arange(count) // places_per_shard).astype(np.int32)
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
        "shards": int(shard[-1]) + 1,
        "cities": len(np.unique(city)),
        "countries": len(set(cities.country[city])),
        "drawn": places.counts["drawn"],
        **{f"rejected_{reason}": places.counts[reason] for reason in REJECTIONS},
    }
