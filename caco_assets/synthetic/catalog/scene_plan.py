"""Which tiles the catalog has, which places lie in them, and when they are imaged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from caco_assets.imagery.scenes.periods import month_start, period_spans, period_windows
from caco_assets.synthetic.earth.change import Event, event_for, marked
from caco_assets.synthetic.earth.earth import Window
from caco_assets.synthetic.earth.noise import Floats, generator, uniform
from caco_assets.synthetic.earth.region import Region
from caco_assets.synthetic.earth.weather import Acquisition, Sky, acquisition

_EARTH_KM = 6371.0088
"""Radius of the sphere on which `distance_km` is measured (the sampler's)."""
MARGIN_M = 120.0
"""A scene reaches this far beyond its chips."""
_LIMIT_PX = 6000
"""Widest scene drawn: beyond it memory and hours are needed."""


@dataclass(frozen=True)
class Spot:
    """One place: its number, its name, and the square of its chip in metres of the projection."""

    index: int
    location_id: str
    left: float
    top: float
    side: float


@dataclass(frozen=True)
class Tile:
    """The scene footprint of one city in one UTM zone."""

    name: str
    """Letters, digits and hyphens; unique in the catalog."""
    region: Region
    window: Window
    spots: tuple[Spot, ...]
    events: tuple[Event, ...]


def centre_of(lon: Floats, lat: Floats, distance_km: Floats) -> tuple[float, float]:
    """The city centre that places at known distances surround, in degrees, rounded to 1e-4.

    `locations.parquet` holds each place and its distance from the centre, not the centre itself: Gauss-Newton on the local plane
    from the mean place finds it (to metres with three places or more; fewer leave a choice, and the nearest point to the mean
    that fits is taken).
    """
    lon0, lat0 = float(lon[0]), float(np.mean(lat))
    east = (np.mod(lon - lon0 + 180.0, 360.0) - 180.0) * math.cos(math.radians(lat0))
    x, y = np.radians(east) * _EARTH_KM, np.radians(lat - lat0) * _EARTH_KM
    best, least = (float(x.mean()), float(y.mean())), math.inf
    spread = float(np.max(distance_km)) + 0.1
    for start_x, start_y in ((0.0, 0.0), (0.3, 0.1), (-0.3, 0.2), (0.1, -0.3), (-0.2, -0.2)):
        cx, cy = float(x.mean()) + start_x * spread, float(y.mean()) + start_y * spread
        gap = np.zeros(len(x))
        for _ in range(60):
            dx, dy = cx - x, cy - y
            reach = np.sqrt(dx * dx + dy * dy) + 1e-9
            gap, ux, uy = reach - distance_km, dx / reach, dy / reach
            a, b, d = float((ux * ux).sum()) + 1e-6, float((ux * uy).sum()), float((uy * uy).sum()) + 1e-6
            gx, gy = float((ux * gap).sum()), float((uy * gap).sum())
            det = a * d - b * b
            cx, cy = cx - (d * gx - b * gy) / det, cy - (a * gy - b * gx) / det
        error = float((gap * gap).sum())
        if error < least - 1e-6:
            best, least = (cx, cy), error
    centre_lon = lon0 + math.degrees(best[0] / _EARTH_KM) / math.cos(math.radians(lat0))
    return round((centre_lon + 180.0) % 360.0 - 180.0, 4), round(lat0 + math.degrees(best[1] / _EARTH_KM), 4)


def window_around(epsg: int, squares: list[tuple[float, float, float]]) -> Window:
    """The smallest window on the 60 m grid around squares (left, top, side) with a margin.

    Raises:
        ValueError: it is wider than the embedded Earth is drawn.
    """
    west = math.floor((min(left for left, _, _ in squares) - MARGIN_M) / 60.0) * 60.0
    east = math.ceil((max(left + side for left, _, side in squares) + MARGIN_M) / 60.0) * 60.0
    south = math.floor((min(top - side for _, top, side in squares) - MARGIN_M) / 60.0) * 60.0
    north = math.ceil((max(top for _, top, _ in squares) + MARGIN_M) / 60.0) * 60.0
    width, height = int((east - west) // 10), int((north - south) // 10)
    if max(width, height) > _LIMIT_PX:
        raise ValueError(f"its places span {max(width, height) // 100} km; the embedded Earth draws at most {_LIMIT_PX // 100} km")
    return Window(epsg, west, north, width, height)


def events_of(
    seed: int, region: Region, spots: tuple[Spot, ...], share: float, between: tuple[datetime, datetime]
) -> tuple[Event, ...]:
    """The events of the marked places of a tile."""
    west, north = region.origin
    events = []
    for spot in spots:
        if marked(seed, spot.index, share):
            middle = (spot.left + spot.side / 2.0 - west, north - spot.top + spot.side / 2.0)
            event = event_for(region, middle, spot.side, spot.index, between)
            if event is not None:
                events.append(event)
    return tuple(events)


def acquisitions(tile: Tile, windows: list[list[tuple[datetime, datetime]]], per_season: int) -> list[Acquisition]:
    """Overpasses of a tile: `per_season` dates in each season of each period, on different days, at about 10:40 local solar time.

    Of a season's overpasses the one that was drawn first is mostly clear and the others mostly cloudy: about a third of all are
    heavily clouded and a third partly, yet nearly every season has a date that will do.
    """
    looks = []
    for period, seasons in enumerate(windows):
        for season, (start, stop) in enumerate(seasons):
            draw = generator("overpasses", tile.region.key, tile.region.epsg, period, season, start.isoformat())
            days = max(1, (stop - start).days)
            # different days, in the order of their hashes; the first of them gets the best sky
            order = np.argsort(uniform(np.arange(days), np.zeros(1, np.int64), int(draw.integers(2**32))))[:per_season]
            for number, day in enumerate(order):
                solar = timedelta(hours=10.0 + 40.0 / 60.0 - tile.region.lon / 15.0, minutes=float(int(10 * draw.random())))
                midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
                when = (midnight + timedelta(days=int(day)) + solar).astimezone(UTC).replace(microsecond=0)
                # the season may start in the afternoon, and far from Greenwich local morning is another day
                when = when if when >= start else when + timedelta(days=1)
                when = when if when < stop else when - timedelta(days=1)
                looks.append(acquisition(tile.region, when, _sky(number, float(draw.random()))))
    return looks


def overpasses(
    tile: Tile, vintage: str, calendar: str, gap_years: int, period_months: int, seasons: int, per_season: int
) -> list[Acquisition]:
    """Overpasses of a tile in the periods of `vintage`, when those of `calendar` say where in time they are drawn.

    The periods of `calendar` are repeated along time without holes, and `acquisitions` draws in each; what lies in a period of
    `vintage` is seen. So vintages a month apart share the scenes of the months that they share, as with a real satellite.
    """
    (year, month), (first_year, first_month) = ([int(part) for part in text.split("-")] for text in (vintage, calendar))
    cycle = (12 * (year - first_year) + month - first_month) // period_months
    looks = []
    for period, (start, stop) in enumerate(period_spans(period_windows(vintage, gap_years, period_months, seasons))):
        for repeat in (cycle, cycle + 1):
            moved = month_start(first_year, first_month, repeat * period_months)
            windows = period_windows(f"{moved:%Y-%m}", gap_years, period_months, seasons)
            drawn = acquisitions(tile, [own if index == period else [] for index, own in enumerate(windows)], per_season)
            looks += [look for look in drawn if start <= look.when < stop]
    return looks


def _sky(number: int, draw: float) -> Sky:
    if number == 0:
        return "clear" if draw < 0.75 else "partly"
    return "overcast" if draw < 0.62 else "partly" if draw < 0.88 else "clear"
