"""Chips of the embedded Earth without files in between, for machines that have numpy and little else: any number of places.

Towns are no city of any gazetteer and none of the twins' (`twins.eurosat.town_region`), so nothing here was ever a test picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

import numpy as np

from caco_assets.synthetic.earth import level_1c, noise, terrain
from caco_assets.synthetic.earth.change import event_for, marked
from caco_assets.synthetic.earth.earth import GSD, View, Window, enlarged, scaled_numbers
from caco_assets.synthetic.earth.noise import Frame
from caco_assets.synthetic.earth.region import CLASSES, Region, region
from caco_assets.synthetic.earth.weather import acquisition

CHANGED_FROM = 0.01
"""Share of a chip's pixels whose cover differs from which on the place counts as changed."""
_STRIDE = 6
"""Every so many pixels of the map of a town are looked at."""
_NEARLY = 0.85
"""A position is as good as a town's best if it shows at least this share of what that one shows."""
_LEAST = 0.05
"""A town whose best position shows less of a class does not have it."""
_YEAR = timedelta(days=365)
_REACH_M = 4800.0
"""Half the side of the square around a town's centre in which places lie."""


@dataclass(frozen=True)
class Wanted:
    """What is drawn at every place."""

    side: int
    """Pixels of 10 m, a multiple of 6."""
    seasons: int
    """Dates in each of the two periods: one in each equal part of the year."""
    bands: tuple[str, ...] = ("B04", "B03", "B02")
    changed_share: float = 0.3
    """Share of places with true long-term change."""
    gap_years: int = 4
    box: tuple[float, float, float, float] = (-180.0, -45.0, 180.0, 65.0)
    """West, south, east, north of the towns."""
    places_per_town: int = 8
    pure: float = 0.0
    """Share of places that lie where the town has most of a class of cover drawn for the place, as labelled pictures of benchmarks
    do; the others lie anywhere, so that classes are as common and as mixed as they are."""
    level: Literal["2A", "1C"] = "2A"
    """`2A`: surface reflectance, as an archive holds it; `1C`: with each date's air still in the picture."""


@dataclass(frozen=True)
class DrawnChip:
    """One clear date of one place, as an archive would give it."""

    location_id: str
    period: int
    season: int
    lon: float
    lat: float
    pixels: np.ndarray
    """uint16 (bands, side, side), reflectance × 10 000."""


@dataclass(frozen=True)
class DrawnPlace:
    """One place: its chips by period and season, and the truth."""

    chips: tuple[DrawnChip, ...]
    changed: bool
    fraction: float
    """Share of its pixels whose cover changed between the periods; crop rotation is no change."""
    cover: np.ndarray
    """Share of its pixels in each of `region.CLASSES` in the early period."""


def draw_places(seed: int, start: int, stop: int, wanted: Wanted) -> Iterator[DrawnPlace]:
    """The places of numbers `start` … `stop` - 1; each depends on (seed, number) alone.

    Raises:
        ValueError: the side is no multiple of 6.
    """
    for number in range(start, stop):
        yield _draw(seed, number, wanted)


def _draw(seed: int, number: int, wanted: Wanted) -> DrawnPlace:
    town = number // wanted.places_per_town
    here = _town(seed, town, wanted)
    draw = noise.generator("chips place", seed, number)
    offset = [60.0 * round(_REACH_M * (2.0 * float(draw.random()) - 1.0) / 60.0) for _ in range(2)]
    aim = noise.generator("chips aim", seed, number)
    if aim.random() < wanted.pure:
        offset = _pure_position(aim, _shares(seed, town, wanted))
    window = Window(here.epsg, here.origin[0] + offset[0], here.origin[1] + offset[1], wanted.side, wanted.side)
    extent = 10.0 * wanted.side
    late = datetime(2023, 1, 1, tzinfo=UTC)
    early = late - wanted.gap_years * _YEAR
    event = None
    if marked(seed, number, wanted.changed_share):
        middle = (offset[0] + extent / 2.0, extent / 2.0 - offset[1])
        event = event_for(here, middle, extent, number, (early + _YEAR, late))
    view = View(here, window, () if event is None else (event,))
    # about 40 km for 0.36 degrees: near enough for what asks where a place is
    lat = here.lat + (offset[1] - extent / 2.0) / 111_320.0
    lon = here.lon + (offset[0] + extent / 2.0) / (111_320.0 * math.cos(math.radians(here.lat)))
    chips = [
        DrawnChip(f"S{number:07d}", period, season, lon, lat, _pixels(view, start, season, float(draw.random()), wanted, aim))
        for period, start in enumerate((early, late))
        for season in range(wanted.seasons)
    ]
    cover = view.cover(early)
    fraction = float(np.mean(cover != view.cover_at_last()))
    return DrawnPlace(
        tuple(chips), fraction >= CHANGED_FROM, fraction, np.bincount(cover.ravel(), minlength=len(CLASSES)) / cover.size
    )


def _pure_position(aim: np.random.Generator, shares: np.ndarray) -> list[float]:
    """Metres east of the town's centre of a place's western edge, and north of its northern edge."""
    best = shares.max(axis=(1, 2))
    target = next((number for number in aim.permutation(len(CLASSES)) if best[number] >= _LEAST), int(np.argmax(best)))
    good = np.argwhere(shares[target] >= _NEARLY * best[target])
    row, col = good[aim.integers(len(good))]
    step = 10.0 * _STRIDE
    return [step * float(col) - _REACH_M, _REACH_M - step * float(row)]


@lru_cache(maxsize=2)
def _shares(seed: int, town: int, wanted: Wanted) -> np.ndarray:
    """float32 (classes, rows, columns): share of each class in a place at each position of a town, from the north-west."""
    side = wanted.side // _STRIDE
    reach = round(_REACH_M / 10.0)
    steps = np.arange(-reach, reach + wanted.side, _STRIDE)
    cover = terrain.survey(_town(seed, town, wanted), Frame(steps, steps)).cover
    total = np.zeros((len(CLASSES), len(steps) + 1, len(steps) + 1), np.int32)
    total[:, 1:, 1:] = (cover == np.arange(len(CLASSES))[:, None, None]).cumsum(1).cumsum(2)
    inside = total[:, side:, side:] - total[:, :-side, side:] - total[:, side:, :-side] + total[:, :-side, :-side]
    return (inside / np.float32(side * side)).astype(np.float32)


def _pixels(view: View, start: datetime, season: int, share: float, wanted: Wanted, chance: np.random.Generator) -> np.ndarray:
    """A cloudless date inside the season, every band on the 10 m grid; the air of a level-1C picture is drawn from `chance`."""
    days = int(365 * (season + share) / wanted.seasons)
    when = start + timedelta(days=days, hours=10, minutes=40 - int(4 * view.region.lon))
    look = acquisition(view.region, when)
    raw = wanted.level == "1C"
    image = view.render(replace(look, cloud=0.0, swath=None, **({"haze": 0.0} if raw else {})))
    over = level_1c.column(chance)
    layers = []
    for band in wanted.bands:
        layer = enlarged(image.bands[band], GSD[band] // 10)
        layers.append(level_1c.apparent(layer, band, over) if raw else layer)
    return scaled_numbers(np.stack(layers))


def _town(seed: int, town: int, wanted: Wanted) -> Region:
    draw = noise.generator("chips town", seed, town)
    west, south, east, north = wanted.box
    low, high = math.sin(math.radians(south)), math.sin(math.radians(north))
    lon = west + (east - west) * float(draw.random())
    lat = math.degrees(math.asin(low + (high - low) * float(draw.random())))
    return region(seed, f"*chips*/{town}", round(lon, 4), round(lat, 4))
