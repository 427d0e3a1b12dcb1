"""Draws places on the Earth as one seeded stream: asking for more places keeps the first ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from caco_assets.core.errors import UserError
from caco_assets.sampling.acceptance import Acceptance
from caco_assets.sampling.gazetteer import Cities
from caco_assets.sampling.sphere import Floats, Spacing, distance_km, unit_vectors
from caco_assets.sampling.streams import BATCH, TAIL_SIGMAS, Stream, city_stream, grid_stream, reachable, uniform_stream
from caco_assets.settings import Sampling

DRAWS_PER_PLACE = 100
"""Candidates tried per wanted place before giving up (and at least `MIN_BATCHES` batches)."""
MIN_BATCHES = 50
REJECTIONS = ("outside_region", "ocean", "excluded", "too_close")
"""Reasons for rejecting a candidate, in the order of the tests: each test sees what passed the ones before."""


@dataclass(frozen=True)
class Places:
    """The accepted places, in order of acceptance, and the number of rejected candidates."""

    lon: Floats
    lat: Floats
    city_index: NDArray[np.int64]
    """Row of the city in the gazetteer it belongs to."""
    distance_km: Floats
    """From that city."""
    counts: dict[str, int]
    """`drawn`, and the `REJECTIONS`."""


def draw(sampling: Sampling, seed: int, cities: Cities, acceptance: Acceptance) -> Places:
    """Places by the strategy of `sampling`.

    Args:
        sampling: settings.
        seed: of the stream; the places of a smaller `sampling.places` are the first of a larger one.
        cities: from `gazetteer.cities_of`.
        acceptance: tests that candidates must pass.

    Raises:
        UserError: no city is near the region, or the places do not fit; the counts of what was rejected, and what to lower,
            are in the message.
    """
    rng, box, strategy = np.random.default_rng(seed), acceptance.region.bounds, sampling.strategy
    if strategy == "grid":
        if sampling.min_distance_km == 0:
            raise UserError("sampling.min_distance_km=0: strategy grid needs a spacing above 0 km")
        # the grid does not test for land: for a user's own imagery, its coverage decides
        lon, lat, _, counts = _accept(sampling, grid_stream(box, sampling.min_distance_km), acceptance, strict=False)
        return _named(lon, lat, cities, counts)
    if strategy == "uniform_land":
        lon, lat, _, counts = _accept(sampling, uniform_stream(rng, box), acceptance, strict=True)
        return _named(lon, lat, cities, counts)
    near = np.flatnonzero(reachable(cities, box, sampling.sigma_km))
    if len(near) == 0:
        raise UserError(
            f"sampling.region={box}: none of the {len(cities)} cities lies within "
            f"{TAIL_SIGMAS * sampling.sigma_km:g} km of it; raise sampling.cities, or use strategy uniform_land or grid"
        )
    weights = cities.population[near].astype(np.float64) ** sampling.city_weight if sampling.city_weight else None
    stream = city_stream(rng, cities.lon[near], cities.lat[near], sampling.sigma_km, weights)
    lon, lat, origin, counts = _accept(sampling, stream, acceptance, strict=strategy == "caco")
    index = near[origin]
    return Places(lon, lat, index, distance_km(cities.lon[index], cities.lat[index], lon, lat), counts)


def _accept(
    sampling: Sampling, stream: Stream, acceptance: Acceptance, *, strict: bool
) -> tuple[Floats, Floats, NDArray[np.int64], dict[str, int]]:
    """The first `sampling.places` candidates of `stream` that pass the tests; `strict`: land and spacing too.

    A stream that ends gives fewer.
    """
    spacing = Spacing(sampling.min_distance_km)
    counts: dict[str, int] = dict.fromkeys(("drawn", *REJECTIONS), 0)
    tests: dict[str, Callable[[Floats, Floats], NDArray[np.bool_]]] = {
        "outside_region": acceptance.region.contains,
        "ocean": acceptance.land,
        # before the spacing: an excluded candidate must not block others
        "excluded": lambda lon, lat: ~acceptance.zones.touched(lon, lat),
        "too_close": lambda lon, lat: spacing.accept(unit_vectors(lon, lat)),
    }
    if not strict:
        del tests["ocean"], tests["too_close"]
    kept: list[tuple[Floats, Floats, NDArray]] = []
    found = 0
    endless = sampling.strategy != "grid"
    limit = max(MIN_BATCHES * BATCH, DRAWS_PER_PLACE * sampling.places)
    for lon, lat, origin in stream:
        # rounded as they are stored, so that the tested values are the written ones
        batch: tuple[Floats, Floats, NDArray] = (np.round(lon, 6), np.round(lat, 6), origin)
        counts["drawn"] += len(lon)
        for name, test in tests.items():
            good = test(batch[0], batch[1])
            counts[name] += int((~good).sum())
            batch = (batch[0][good], batch[1][good], batch[2][good])
        kept.append(batch)
        found += len(batch[0])
        if found >= sampling.places:
            break
        if endless and counts["drawn"] >= limit:
            raise UserError(_does_not_fit(sampling, found, counts))
    if found == 0:
        raise UserError(_does_not_fit(sampling, found, counts))
    lon, lat, origin = (np.concatenate(column)[: sampling.places] for column in zip(*kept, strict=True))
    return lon, lat, origin, counts


def _named(lon: Floats, lat: Floats, cities: Cities, counts: dict[str, int]) -> Places:
    """Places that were not drawn around a city belong to the nearest one of the gazetteer."""
    _, index = KDTree(unit_vectors(cities.lon, cities.lat)).query(unit_vectors(lon, lat))
    index = np.asarray(index, np.int64)
    return Places(lon, lat, index, distance_km(cities.lon[index], cities.lat[index], lon, lat), counts)


def _does_not_fit(sampling: Sampling, found: int, counts: dict[str, int]) -> str:
    return (
        f"sampling.places={sampling.places}: only {found} found among {counts['drawn']} candidates "
        f"({counts['ocean']} in the ocean, {counts['outside_region']} outside the region, "
        f"{counts['excluded']} in an exclusion zone, "
        f"{counts['too_close']} closer than {sampling.min_distance_km:g} km to another); "
        "lower sampling.places or sampling.min_distance_km, or raise sampling.cities or sampling.sigma_km"
    )
