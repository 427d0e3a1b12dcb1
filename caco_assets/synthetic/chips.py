"""Chips of the embedded Earth without files in between, for machines that have numpy and little else: any number of places.

Towns are no city of any gazetteer and none of the twins' (`eurosat_twin.town_region`), so nothing here was ever a test picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from caco_assets.synthetic import noise, terrain
from caco_assets.synthetic.change import event_for, marked
from caco_assets.synthetic.earth import GSD, View, Window
from caco_assets.synthetic.noise import Frame
from caco_assets.synthetic.region import CLASSES, Region, region
from caco_assets.synthetic.weather import acquisition

CHANGED_FROM = 0.01
"""Share of a chip's pixels whose cover differs from which on the place counts as changed."""
_NEAR_M = 2000.0
"""The same for the further positions of a balanced draw."""
_STRIDE = 6
"""Every so many pixels of a position are looked at."""
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
    balanced: int = 1
    """Positions that are looked at for a place, most of them near the town, where rivers and motorways are; the one that has most
    of a class of cover drawn for the place is taken. 1: the first, so that classes are as common as they are."""


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
    here = _town(seed, number // wanted.places_per_town, wanted)
    draw = noise.generator("chips place", seed, number)
    offset = _position(seed, number, here, draw, wanted)
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
        DrawnChip(f"S{number:07d}", period, season, lon, lat, _pixels(view, start, season, float(draw.random()), wanted))
        for period, start in enumerate((early, late))
        for season in range(wanted.seasons)
    ]
    cover = view.cover(early)
    fraction = float(np.mean(cover != view.cover_at_last()))
    return DrawnPlace(
        tuple(chips), fraction >= CHANGED_FROM, fraction, np.bincount(cover.ravel(), minlength=len(CLASSES)) / cover.size
    )


def _position(seed: int, number: int, here: Region, draw: np.random.Generator, wanted: Wanted) -> list[float]:
    """Metres east of the town's centre of a place's western edge, and north of its northern edge."""
    found = [_offset(draw, _REACH_M)]
    if wanted.balanced == 1:
        return found[0]
    aim = noise.generator("chips aim", seed, number)
    target = int(aim.integers(len(CLASSES)))
    found += [_offset(aim, _NEAR_M) for _ in range(wanted.balanced - 1)]
    shares = []
    for east, north in found:
        col, row = round(east / 10.0), round(-north / 10.0)
        step = np.arange(2, wanted.side, _STRIDE)
        shares.append(float((terrain.survey(here, Frame(col + step, row + step)).cover == target).mean()))
    return found[int(np.argmax(shares))]


def _offset(draw: np.random.Generator, reach: float) -> list[float]:
    return [60.0 * round(reach * (2.0 * float(draw.random()) - 1.0) / 60.0) for _ in range(2)]


def _pixels(view: View, start: datetime, season: int, share: float, wanted: Wanted) -> np.ndarray:
    """A cloudless date inside the season, every band on the 10 m grid."""
    days = int(365 * (season + share) / wanted.seasons)
    when = start + timedelta(days=days, hours=10, minutes=40 - int(4 * view.region.lon))
    look = acquisition(view.region, when)
    image = view.render(replace(look, cloud=0.0, swath=None))
    layers = []
    for band in wanted.bands:
        step = GSD[band] // 10
        layers.append(np.repeat(np.repeat(image.bands[band], step, 0), step, 1))
    return np.clip(np.floor(np.stack(layers) * np.float32(10_000) + np.float32(0.5)), 1, 65535).astype(np.uint16)


def _town(seed: int, town: int, wanted: Wanted) -> Region:
    draw = noise.generator("chips town", seed, town)
    west, south, east, north = wanted.box
    low, high = math.sin(math.radians(south)), math.sin(math.radians(north))
    lon = west + (east - west) * float(draw.random())
    lat = math.degrees(math.asin(low + (high - low) * float(draw.random())))
    return region(seed, f"*chips*/{town}", round(lon, 4), round(lat, 4))
