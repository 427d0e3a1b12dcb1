"""The embedded Earth: from (seed, place, date) to land cover and twelve Sentinel-2 bands. Needs numpy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache

import numpy as np

from caco_assets.synthetic.earth import change, noise, terrain, texture, weather
from caco_assets.synthetic.earth.change import Event
from caco_assets.synthetic.earth.noise import Frame, Singles
from caco_assets.synthetic.earth.palette import Palette
from caco_assets.synthetic.earth.region import RIVER, SEALAKE, Region
from caco_assets.synthetic.earth.spectra import BANDS
from caco_assets.synthetic.earth.weather import Acquisition, Air

GSD: dict[str, int] = dict(zip(BANDS, (60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 20, 20), strict=True))
"""Native pixel size of each band in metres."""
_PAD = 6
"""Pixels rendered around a window for blur and slopes; six keep the 20 and 60 m grids aligned."""
# Light that a 10 m pixel takes from its neighbour along a line: a modulation transfer of about 0.3 at the Nyquist frequency.
_SPREAD = np.float32(0.15)
_SENSOR_NOISE = 0.0014
"""Standard deviation of the sensor's noise in reflectance."""
BASELINE_0400 = datetime(2022, 1, 25, tzinfo=UTC)
"""From this day on products carry the +1000 offset."""
OFFSET = 1000


@dataclass(frozen=True)
class Window:
    """A north-up window of the 10 m grid of a UTM zone, aligned to 60 m."""

    epsg: int
    west: float
    north: float
    width: int
    """Pixels of 10 m, a multiple of 6."""
    height: int

    def __post_init__(self) -> None:
        if self.west % 60 or self.north % 60 or self.width % 6 or self.height % 6:
            raise ValueError(f"window {self}: west and north must be multiples of 60 m, width and height of 6 pixels")


@dataclass(frozen=True)
class Image:
    """One rendered acquisition."""

    bands: dict[str, Singles]
    """Surface reflectance per band at its native pixel size, (H, W) at 10 m, (H/2, W/2) at 20 m, (H/6, W/6) at 60 m."""
    scl: np.ndarray
    """Scene classification at 20 m, uint8 (H/2, W/2): 0 no data, 2 dark, 3 shadow, 4 vegetation, 5 bare, 6 water, 8-10 clouds."""
    nodata: np.ndarray
    """Pixels beyond the swath at 20 m, bool (H/2, W/2)."""

    @property
    def cloud_cover(self) -> float:
        """Percent of the pixels with data that are cloud (SCL 8, 9, 10)."""
        valid = np.count_nonzero(self.scl)
        return 100.0 * np.count_nonzero((self.scl >= 8) & (self.scl <= 10)) / valid if valid else 100.0


class View:
    """All that does not depend on the date in one window."""

    def __init__(self, region: Region, window: Window, events: tuple[Event, ...] = ()) -> None:
        self.region, self.window, self.events = region, window, events
        self.palette = Palette(region)
        west, north = region.origin
        col, row = int((window.west - west) // noise.PIXEL), int((north - window.north) // noise.PIXEL)
        self.frame = Frame(np.arange(col - _PAD, col + window.width + _PAD), np.arange(row - _PAD, row + window.height + _PAD))
        self.land = terrain.survey(region, self.frame)
        self._after, self._owner = change.after(self.land.cover, self.frame, events)
        shared = texture.layers(region, self.frame)
        self._before = texture.paint(region, self.frame, self.land, self.land.cover, shared)
        self._later = self._before
        if self._owner.any():
            numbers = [(number, event.rule.bare) for number, event in enumerate(events, 1) if event.rule.bare is not None]
            bare = {
                reason: np.isin(self._owner, [number for number, other in numbers if other == reason])
                for reason in sorted({reason for _, reason in numbers})
            }
            self._later = texture.paint(region, self.frame, self.land, self._after, shared, bare)

    def _happened(self, when: datetime) -> np.ndarray:
        """Pixels whose event has happened, bool (H, W) with padding."""
        done = [number for number, event in enumerate(self.events, 1) if event.when <= when]
        return np.isin(self._owner, done) if done else np.zeros(self._owner.shape, bool)

    def cover(self, when: datetime) -> np.ndarray:
        """Class codes (`region.CLASSES`) on a date, uint8 (H, W). Crop rotation is no change of cover."""
        return _inner(np.where(self._happened(when), self._after, self.land.cover))

    def cover_at_last(self) -> np.ndarray:
        """Class codes after all events, uint8 (H, W)."""
        return _inner(self._after)

    def event(self) -> np.ndarray:
        """Number of the event (from 1; 0: none) that touches each pixel at any time, int16 (H, W)."""
        return _inner(self._owner)

    @cached_property
    def _coarse(self) -> Frame:
        return Frame(self.frame.cols[::2], self.frame.rows[::2])

    def render(self, look: Acquisition) -> Image:
        """The window as an acquisition sees it (surface reflectance with what the correction left of haze)."""
        happened = self._happened(look.when)
        ground = self._before
        if happened.any():
            ground = texture.Ground(
                *(np.where(happened, getattr(self._later, name), getattr(ground, name)) for name in ("entry", "mix", "gain"))
            )
        age = max((float((look.when - event.when).days) for event in self.events), default=0.0)
        first, second = self.palette.on(look.when, max(age, 0.0))
        light = ground.gain * self._shading(look)
        light = np.where((self.land.cover == SEALAKE) | (self.land.cover == RIVER), ground.gain, light)
        entry = ground.entry.astype(np.intp)
        air = weather.air(look, self._coarse)
        fine = Air(*(enlarged(array, 2) for array in (air.cloud, air.shadow, air.haze)))
        coarsest = Air(*(_mean(array, 3) for array in (air.cloud, air.shadow, air.haze)))
        nodata = weather.beyond_swath(look, self._coarse)
        bands: dict[str, Singles] = {}
        for number, name in enumerate(BANDS):
            gsd = GSD[name]
            # two in three pixels along each side say nothing new to a 60 m mean
            at = (slice(1, None, 3), slice(1, None, 3)) if gsd == 60 else (slice(None), slice(None))
            a, b = np.take(first[:, number], entry[at]), np.take(second[:, number], entry[at])
            a -= b
            a *= ground.mix[at]
            a += b
            a *= light[at]
            a = _spread(a) if gsd == 10 else _mean(a, 2)
            seen = _through({10: fine, 20: air, 60: coarsest}[gsd], a, number)
            seen += self._sensor_noise(look, gsd, number)
            bands[name] = _inner(seen, _PAD * 10 // gsd)
        inner, nodata = _PAD // 2, _inner(nodata, _PAD // 2)
        scl = self._classify(bands, Air(*(_inner(array, inner) for array in (air.cloud, air.shadow, air.haze))), look.when)
        scl[nodata] = 0
        return Image(bands, scl, nodata)

    def _shading(self, look: Acquisition) -> Singles:
        """Light on a slope over that on level ground; a third of it is left after terrain correction and skylight."""
        tangent = 0.35 / math.tan(math.radians(look.sun_elevation))
        azimuth = math.radians(look.sun_azimuth)
        east, south = round(tangent * math.sin(azimuth), 9), round(-tangent * math.cos(azimuth), 9)
        tilt = np.float32(east) * self.land.slope_east + np.float32(south) * self.land.slope_south
        return np.clip(np.float32(1.0) - tilt, np.float32(0.5), np.float32(1.5))

    def _sensor_noise(self, look: Acquisition, gsd: int, number: int) -> Singles:
        step = gsd // 10
        cols, rows = self.frame.cols[::step] // step, self.frame.rows[::step] // step
        bits = noise.hash32(cols[None, :], rows[:, None], noise.key_of(look.key, "noise", number))
        # two bytes make a triangular distribution; its standard deviation is 256 / sqrt(6)
        total = ((bits & np.uint32(255)) + ((bits >> np.uint32(8)) & np.uint32(255))).astype(np.float32)
        return (total - np.float32(255.0)) * np.float32(_SENSOR_NOISE * math.sqrt(6.0) / 256.0)

    def _classify(self, bands: dict[str, Singles], air: Air, when: datetime) -> np.ndarray:
        red, infrared = _mean(bands["B04"], 2), bands["B8A"]
        cover = self.cover(when)[::2, ::2]
        scl = np.where(infrared - red > np.float32(0.38) * (infrared + red), 4, 5).astype(np.uint8)
        scl[(infrared < 0.05) & (scl == 5)] = 2
        scl[(cover == SEALAKE) | (cover == RIVER)] = 6
        scl[air.shadow > 0.3] = 3
        scl[air.cloud > 0.0] = 10
        scl[air.cloud > 0.25] = 8
        scl[air.cloud > 0.6] = 9
        return scl


def _inner(array: np.ndarray, pad: int = _PAD) -> np.ndarray:
    return np.ascontiguousarray(array[pad:-pad, pad:-pad])


def _mean(array: Singles, n: int) -> Singles:
    """Mean of n x n blocks by explicit sums: the order of additions is the same on every machine."""
    columns = array[:, 0::n].copy()
    for k in range(1, n):
        columns += array[:, k::n]
    total = columns[0::n].copy()
    for k in range(1, n):
        total += columns[k::n]
    total *= np.float32(1.0 / (n * n))
    return total


def enlarged(array: np.ndarray, times: int) -> np.ndarray:
    """(…, rows, cols) → (…, rows · times, cols · times): each pixel becomes a square."""
    return np.repeat(np.repeat(array, times, axis=-2), times, axis=-1)


def _spread(array: Singles) -> Singles:
    """The optics' blur along both axes; the outermost line, which padding hides, is left as it is."""
    rest = np.float32(1.0) - 2 * _SPREAD
    rows = array * rest
    rows[1:-1] += _SPREAD * (array[:-2] + array[2:])
    out = rows * rest
    out[:, 1:-1] += _SPREAD * (rows[:, :-2] + rows[:, 2:])
    return out


def _through(air: Air, surface: Singles, band: int) -> Singles:
    """Reflectance seen through shadow, haze and cloud."""
    # skylight reaches a shadow: more of it in blue
    dark = np.float32(0.45 + 0.25 * min(1.0, (weather.PATH[4] + 0.01) / (weather.PATH[band] + 0.01)))
    path, cloud = np.float32(weather.PATH[band]), np.float32(weather.CLOUD[band])
    seen = surface * (np.float32(1.0) - dark * air.shadow)
    seen *= np.float32(1.0) - np.float32(1.3) * path * air.haze
    seen += path * air.haze
    seen += air.cloud * (cloud * (np.float32(0.75) + np.float32(0.25) * air.cloud) - seen)
    return seen


class Earth:
    """One region of the embedded Earth with its events.

    Args:
        region: see `region.region(seed, city, lon, lat)`.
        events: long-term changes, see `change.event_for`.
    """

    def __init__(self, region: Region, events: tuple[Event, ...] = ()) -> None:
        self.region, self.events = region, events
        # one window is rendered on many dates: its layers are kept
        self._view = lru_cache(maxsize=1)(self._survey)

    def _survey(self, window: Window) -> View:
        if window.epsg != self.region.epsg:
            raise ValueError(f"window in EPSG:{window.epsg}, but the region is drawn in EPSG:{self.region.epsg}")
        return View(self.region, window, self.events)

    def view(self, window: Window) -> View:
        """The window's date-independent layers."""
        return self._view(window)

    def cover(self, window: Window, when: datetime) -> np.ndarray:
        """Class codes (`region.CLASSES`) on a date, uint8 (H, W)."""
        return self.view(window).cover(when)

    def render(self, window: Window, look: Acquisition) -> Image:
        """Surface reflectance and scene classification of a window on an acquisition."""
        return self.view(window).render(look)


def scaled_numbers(reflectance: Singles, offset: int = 0) -> np.ndarray:
    """uint16 of reflectance x 10 000 plus an offset, never 0, which means no data."""
    return np.clip(np.floor(reflectance * np.float32(10_000.0) + np.float32(offset + 0.5)), 1, 65535).astype(np.uint16)


def digital_numbers(reflectance: Singles, when: datetime, nodata: np.ndarray | None = None) -> np.ndarray:
    """uint16 as a level-2A product stores it: reflectance x 10 000, +1000 from baseline 04.00 on, 0 where there is no data."""
    numbers = scaled_numbers(reflectance, OFFSET if when >= BASELINE_0400 else 0)
    if nodata is not None:
        numbers[nodata] = 0
    return numbers
