"""Draws places on the Earth as one seeded stream: asking for more places keeps the first ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from caco_assets.errors import UserError
from caco_assets.sampling.gazetteer import Cities
from caco_assets.sampling.land import is_land
from caco_assets.sampling.sphere import EARTH_RADIUS_KM, Floats, Spacing, destination, distance_km, unit_vectors
from caco_assets.settings import Sampling

BATCH = 16_384
"""Candidates drawn at a time. A constant: a batch that depended on `places` would change the stream."""
DRAWS_PER_PLACE = 100
"""Candidates tried per wanted place before giving up (and at least `MIN_BATCHES` batches)."""
MIN_BATCHES = 50
TAIL_SIGMAS = 8
"""Cities farther from the region than this many sigmas never reach it in practice (probability 1e-14)."""

Region = tuple[float, float, float, float]


@dataclass(frozen=True)
class Places:
    """The accepted places, in order of acceptance, and how many candidates fell by the way."""

    lon: Floats
    lat: Floats
    city_index: NDArray[np.int64]
    """Row of the city in the gazetteer it belongs to."""
    distance_km: Floats
    """From that city."""
    counts: dict[str, int]
    """`drawn`, `ocean`, `outside_region`, `too_close`."""


def inside(region: Region | None, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
    """Which points lie in `region` (west, south, east, north; west > east crosses the antimeridian)."""
    if region is None:
        return np.ones(len(lon), bool)
    west, south, east, north = region
    across = (lon >= west) & (lon <= east) if west <= east else (lon >= west) | (lon <= east)
    return across & (lat >= south) & (lat <= north)


def draw(sampling: Sampling, seed: int, cities: Cities) -> Places:
    """Places by the strategy of `sampling`.

    Args:
        sampling: the settings of the room.
        seed: of the stream; the places of a smaller `sampling.places` are the first of a larger one.
        cities: from `gazetteer.most_populous`.

    Raises:
        UserError: the region is empty or lies outside the Earth, no city is near it, or the places do not fit; the counts of
            what was rejected, and what to lower, are in the message.
    """
    _check(sampling)
    if sampling.strategy == "grid":
        return _named(*regular_grid(sampling), cities, {"drawn": 0, "ocean": 0, "outside_region": 0, "too_close": 0})
    rng = np.random.default_rng(seed)
    if sampling.strategy == "uniform_land":
        lon, lat, _, counts = _accept(sampling, uniform_stream(rng, sampling.region), on_land=True, spaced=True)
        return _named(lon, lat, cities, counts)
    near = np.flatnonzero(reachable(cities, sampling))
    if len(near) == 0:
        raise UserError(
            f"sampling.region={sampling.region}: none of the {len(cities)} cities lies within "
            f"{TAIL_SIGMAS * sampling.sigma_km:g} km of it; raise sampling.cities, or use strategy uniform_land or grid"
        )
    strict = sampling.strategy == "caco"
    stream = city_stream(rng, cities.lon[near], cities.lat[near], sampling.sigma_km)
    lon, lat, origin, counts = _accept(sampling, stream, on_land=strict, spaced=strict)
    index = near[origin]
    return Places(lon, lat, index, distance_km(cities.lon[index], cities.lat[index], lon, lat), counts)


def city_stream(rng: np.random.Generator, lon: Floats, lat: Floats, sigma_km: float) -> Iterator[tuple[Floats, Floats, NDArray]]:
    """Endless batches of candidates (lon, lat, city): a city uniformly, then a Gaussian step of `sigma_km` on the sphere.

    The two components of the step are independent normal variables, so its length has a Rayleigh distribution and its
    bearing is uniform.
    """
    while True:
        city = rng.integers(0, len(lon), BATCH)
        distance = rng.rayleigh(sigma_km, BATCH)
        bearing = rng.uniform(0, 2 * np.pi, BATCH)
        yield *destination(lon[city], lat[city], bearing, distance), city


def uniform_stream(rng: np.random.Generator, region: Region | None) -> Iterator[tuple[Floats, Floats, NDArray]]:
    """Endless batches of candidates of equal density on the sphere, inside `region`."""
    west, south, east, north = region or (-180.0, -90.0, 180.0, 90.0)
    width = east - west if west <= east else east - west + 360
    low, high = np.sin(np.radians([south, north]))
    while True:
        lon = (west + width * rng.random(BATCH) + 180) % 360 - 180
        lat = np.degrees(np.arcsin(rng.uniform(low, high, BATCH)))
        yield lon, lat, np.zeros(BATCH, np.int64)


def regular_grid(sampling: Sampling) -> tuple[Floats, Floats]:
    """At most `sampling.places` points `min_distance_km` apart over the region, row by row from the north-west.

    The grid does not ask whether a point is on land: with imagery of one's own, that decides. It is centred in the region.
    """
    west, south, east, north = sampling.region or (-180.0, -90.0, 180.0, 90.0)
    width = east - west if west <= east else east - west + 360
    step = np.degrees(sampling.min_distance_km / EARTH_RADIUS_KM)
    rows = int((north - south) / step) + 1
    margin = (north - south - (rows - 1) * step) / 2
    lons, lats, count = [], [], 0
    for row in range(rows):
        lat = north - margin - row * step
        across = width * np.cos(np.radians(lat))
        columns = max(int(across / step), 0) + 1
        start = west + (width - (columns - 1) * step * width / across) / 2 if across > step else west + width / 2
        spacing = step * width / across if across > step else 0.0
        lons.append((start + spacing * np.arange(columns) + 180) % 360 - 180)
        lats.append(np.full(columns, lat))
        count += columns
        if count >= sampling.places:
            break
    return np.concatenate(lons)[: sampling.places], np.concatenate(lats)[: sampling.places]


def reachable(cities: Cities, sampling: Sampling) -> NDArray[np.bool_]:
    """Cities from which the region can be reached: drawing only around these does not change the distribution inside it."""
    if sampling.region is None:
        return np.ones(len(cities), bool)
    west, south, east, north = sampling.region
    middle = (west + (east - west) % 360 / 2 + 180) % 360 - 180
    half = (east - west) % 360 / 2 if east != west + 360 else 180.0
    # the nearest point of the box: clip the latitude, and the longitude relative to the box's middle
    offset = (cities.lon - middle + 180) % 360 - 180
    lon = middle + np.clip(offset, -half, half)
    gap = distance_km(cities.lon, cities.lat, lon, np.clip(cities.lat, south, north))
    return gap <= TAIL_SIGMAS * sampling.sigma_km


def _accept(
    sampling: Sampling, stream: Iterator[tuple[Floats, Floats, NDArray]], *, on_land: bool, spaced: bool
) -> tuple[Floats, Floats, NDArray, dict[str, int]]:
    """The first `sampling.places` candidates of `stream` that pass region, land and spacing, in this order of tests."""
    spacing = Spacing(sampling.min_distance_km if spaced else 0.0)
    counts: dict[str, int] = {"drawn": 0, "ocean": 0, "outside_region": 0, "too_close": 0}
    kept: list[tuple[Floats, Floats, NDArray]] = []
    found = 0
    limit = max(MIN_BATCHES * BATCH, DRAWS_PER_PLACE * sampling.places)

    def keep(batch: list[NDArray], name: str, test: Callable[[Floats, Floats], NDArray[np.bool_]]) -> list[NDArray]:
        good = test(batch[0], batch[1])
        counts[name] += int((~good).sum())
        return [column[good] for column in batch]

    while found < sampling.places:
        if counts["drawn"] >= limit:
            raise UserError(_does_not_fit(sampling, found, counts))
        # rounded as they are stored, so that what is tested is what is written
        lon, lat, origin = next(stream)
        batch: list[NDArray] = [np.round(lon, 6), np.round(lat, 6), origin]
        counts["drawn"] += BATCH
        batch = keep(batch, "outside_region", lambda lon, lat: inside(sampling.region, lon, lat))
        if on_land:
            batch = keep(batch, "ocean", is_land)
        batch = keep(batch, "too_close", lambda lon, lat: spacing.accept(unit_vectors(lon, lat)))
        kept.append((batch[0], batch[1], batch[2]))
        found += len(batch[0])
    lon, lat, origin = (np.concatenate(column)[: sampling.places] for column in zip(*kept, strict=True))
    return lon, lat, origin, counts


def _named(lon: Floats, lat: Floats, cities: Cities, counts: dict[str, int]) -> Places:
    """Places that were not drawn around a city belong to the nearest one of the gazetteer."""
    lon, lat = np.round(lon, 6), np.round(lat, 6)
    _, index = KDTree(unit_vectors(cities.lon, cities.lat)).query(unit_vectors(lon, lat))
    index = np.asarray(index, np.int64)
    return Places(lon, lat, index, distance_km(cities.lon[index], cities.lat[index], lon, lat), counts)


def _check(sampling: Sampling) -> None:
    if sampling.strategy == "grid" and sampling.min_distance_km == 0:
        raise UserError("sampling.min_distance_km=0: strategy grid needs a spacing above 0 km")
    if sampling.region is None:
        return
    west, south, east, north = sampling.region
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
        raise UserError(
            f"sampling.region={sampling.region}: needs west, south, east, north in degrees, south below north, "
            "longitudes from -180 to 180 (west > east crosses the antimeridian)"
        )


def _does_not_fit(sampling: Sampling, found: int, counts: dict[str, int]) -> str:
    return (
        f"sampling.places={sampling.places}: only {found} found among {counts['drawn']} candidates "
        f"({counts['ocean']} in the ocean, {counts['outside_region']} outside the region, "
        f"{counts['too_close']} closer than {sampling.min_distance_km:g} km to another); "
        "lower sampling.places or sampling.min_distance_km, or raise sampling.cities or sampling.sigma_km"
    )
