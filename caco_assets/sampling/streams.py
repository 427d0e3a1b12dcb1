"""Streams of candidates, one per strategy: seeded, endless (except the grid), and independent of how many places are drawn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from caco_assets.sampling.gazetteer import Cities
from caco_assets.sampling.region import Box
from caco_assets.sampling.sphere import EARTH_RADIUS_KM, Floats, destination, distance_km

BATCH = 16_384
"""Candidates drawn at a time. A constant: a batch that depended on `places` would change the stream."""
TAIL_SIGMAS = 8
"""Cities farther from the region than this many sigmas never reach it in practice (probability 1e-14)."""
WORLD: Box = (-180.0, -90.0, 180.0, 90.0)

Stream = Iterator[tuple[Floats, Floats, NDArray[np.int64]]]
"""Batches of candidates: longitude and latitude in degrees, and the city each belongs to (0 where there is none)."""


def city_stream(rng: np.random.Generator, lon: Floats, lat: Floats, sigma_km: float, weights: Floats | None = None) -> Stream:
    """A city, then a Gaussian step of `sigma_km` on the sphere.

    The two components of the step are independent normal variables, so its length has a Rayleigh distribution and its
    bearing is uniform.

    Args:
        rng: generator of the stream.
        lon: of the cities, degrees (C,).
        lat: of the cities, degrees (C,).
        sigma_km: standard deviation of each component of the step.
        weights: how often each city is drawn (C,), up to a factor; None: all equally often.
    """
    reach = None if weights is None else np.cumsum(weights) / np.sum(weights)
    while True:
        if reach is None:
            city = rng.integers(0, len(lon), BATCH)
        else:
            city = np.minimum(np.searchsorted(reach, rng.random(BATCH), side="right"), len(lon) - 1)
        distance = rng.rayleigh(sigma_km, BATCH)
        bearing = rng.uniform(0, 2 * np.pi, BATCH)
        yield *destination(lon[city], lat[city], bearing, distance), city


def uniform_stream(rng: np.random.Generator, box: Box | None) -> Stream:
    """Equal density on the sphere, inside `box`."""
    west, south, east, north = box or WORLD
    width = _width(west, east)
    low, high = np.sin(np.radians([south, north]))
    while True:
        lon = (west + width * rng.random(BATCH) + 180) % 360 - 180
        lat = np.degrees(np.arcsin(rng.uniform(low, high, BATCH)))
        yield lon, lat, np.zeros(BATCH, np.int64)


def grid_stream(box: Box | None, spacing_km: float) -> Stream:
    """A regular grid over `box`, row by row from the north-west; it ends with the last row.

    Rows are `spacing_km` apart along the meridian, neighbors in a row at least that far along the great circle. The grid is
    centred in the box; around the whole Earth the last point of a row keeps its distance from the first.
    """
    west, south, east, north = box or WORLD
    width = _width(west, east)
    angle = spacing_km / EARTH_RADIUS_KM
    step = np.degrees(angle)
    rows = int((north - south) / step) + 1
    margin = (north - south - (rows - 1) * step) / 2
    for row in range(rows):
        lat = north - margin - row * step
        # points of one latitude φ, δ of longitude apart: sin(angle / 2) = cos φ · sin(δ / 2)
        half = np.sin(angle / 2) / max(np.cos(np.radians(lat)), 1e-12)
        delta = float(np.degrees(2 * np.arcsin(half))) if half < 1 else 360.0
        columns = max(min(int(width / delta) + 1, int(360 / delta)), 1)
        start = west + (width - (columns - 1) * delta) / 2
        lon = (start + delta * np.arange(columns, dtype=np.float64) + 180) % 360 - 180
        yield lon, np.full(columns, lat), np.zeros(columns, np.int64)


def reachable(cities: Cities, box: Box | None, sigma_km: float) -> NDArray[np.bool_]:
    """Cities (C,) from which the box can be reached: drawing only around these does not change the distribution inside it."""
    if box is None:
        return np.ones(len(cities), bool)
    west, south, east, north = box
    half = _width(west, east) / 2
    middle = (west + half + 180) % 360 - 180
    # the nearest point of the box: clip the latitude, and the longitude relative to the box's middle
    offset = (cities.lon - middle + 180) % 360 - 180
    lon = middle + np.clip(offset, -half, half)
    gap = distance_km(cities.lon, cities.lat, lon, np.clip(cities.lat, south, north))
    return gap <= TAIL_SIGMAS * sigma_km


def _width(west: float, east: float) -> float:
    return east - west if west <= east else east - west + 360
