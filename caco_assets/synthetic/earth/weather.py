"""What stands between the ground and the sensor on a date: sun, haze, clouds and their shadows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from caco_assets.synthetic.earth import noise
from caco_assets.synthetic.earth.noise import Frame, Singles
from caco_assets.synthetic.earth.region import Region

Sky = Literal["clear", "partly", "overcast"]

# Scattering of a clean, mid-latitude air column at Sentinel-2's bands as seen from above (apparent reflectance), and the share of
# it that a unit of leftover haze adds to a corrected product. Falls off about as wavelength^-3.5.
PATH = np.array([0.098, 0.073, 0.044, 0.024, 0.020, 0.016, 0.013, 0.010, 0.009, 0.008, 0.002, 0.001])
CLOUD = np.array([0.62, 0.60, 0.60, 0.62, 0.63, 0.64, 0.65, 0.66, 0.66, 0.70, 0.46, 0.36])
_REFERENCE = Frame(np.arange(-640, 640, 10), np.arange(-640, 640, 10))
"""12.8 km around the centre, where the threshold of the wanted cloud cover is found: the same for every window."""


@dataclass(frozen=True)
class Acquisition:
    """One overpass of one region."""

    region: Region
    when: datetime
    sky: Sky
    cloud: float
    """Wanted share of cloud around the city."""
    haze: float
    """Leftover haze in units of `PATH`."""
    sun_elevation: float
    """Degrees."""
    sun_azimuth: float
    """Degrees from north, clockwise."""
    key: int
    swath: tuple[float, float, float] | None
    """Direction (east, south) and distance (metres) of the swath's edge, beyond which there is no data."""


@dataclass(frozen=True)
class Air:
    """The air over a frame, all shapes (H, W)."""

    cloud: Singles
    """Opacity, 0 to 1."""
    shadow: Singles
    """Share of direct light that clouds take away, 0 to 1."""
    haze: Singles
    """Units of `PATH`."""


def sun(lon: float, lat: float, when: datetime) -> tuple[float, float]:
    """Sun elevation and azimuth in degrees (Cooper's declination, good to about a degree), rounded to 1e-6."""
    utc = when.astimezone(UTC)
    day = utc.timetuple().tm_yday
    declination = math.radians(23.45) * math.sin(2 * math.pi * (284 + day) / 365)
    hour = math.radians(15.0 * (utc.hour + utc.minute / 60 + utc.second / 3600 + lon / 15.0 - 12.0))
    phi = math.radians(lat)
    sine = math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(hour)
    east = -math.cos(declination) * math.sin(hour)
    north = math.cos(phi) * math.sin(declination) - math.sin(phi) * math.cos(declination) * math.cos(hour)
    return round(math.degrees(math.asin(sine)), 6), round(math.degrees(math.atan2(east, north)) % 360.0, 6)


def acquisition(region: Region, when: datetime, sky: Sky = "clear") -> Acquisition:
    """The overpass of a region on a date: haze, amount of cloud and swath edge are drawn from the region and the date."""
    draw = noise.generator("weather", region.key, when.strftime("%Y-%m-%d"))
    low, high = {"clear": (0.0, 0.015), "partly": (0.08, 0.5), "overcast": (0.6, 1.0)}[sky]
    cloud = low + (high - low) * float(draw.random())
    haze = 0.05 + 0.75 * float(draw.random()) ** 2 + (0.9 * float(draw.random()) if draw.random() < 0.07 else 0.0)
    edge = draw.random() < 0.06
    angle = math.radians(195.0 if draw.random() < 0.5 else 15.0)
    swath = (round(math.cos(angle), 9), round(math.sin(angle), 9), 400.0 + 3000.0 * float(draw.random())) if edge else None
    # no sun under 12 degrees: the imager does not work there, and shading would have no bound
    elevation, azimuth = sun(region.lon, region.lat, when)
    return Acquisition(region, when, sky, cloud, haze, max(elevation, 12.0), azimuth, int(draw.integers(2**32)), swath)


def air(look: Acquisition, frame: Frame) -> Air:
    """Clouds, their shadows and haze over a frame."""
    haze = noise.fbm(frame, 3000.0, 3, noise.key_of(look.key, "haze"))
    haze = np.float32(look.haze) * np.clip(np.float32(1.0) + np.float32(0.22) * haze, 0.2, 2.0)
    if look.cloud < 0.002:
        clear = np.zeros(frame.shape, np.float32)
        return Air(clear, clear, haze)
    scale = (700.0, 1300.0, 2600.0)[look.key % 3]
    key = noise.key_of(look.key, "clouds")
    threshold = np.float32(np.quantile(noise.fbm(_REFERENCE, scale, 5, key, 0.55), 1.0 - look.cloud))
    height = 700.0 + 900.0 * ((look.key >> 8) % 256) / 256.0
    reach = height / math.tan(math.radians(look.sun_elevation))
    # a shadow falls away from the sun; whole pixels keep the two noise fields on one grid
    east = round(-reach * math.sin(math.radians(look.sun_azimuth)) / noise.PIXEL)
    south = round(reach * math.cos(math.radians(look.sun_azimuth)) / noise.PIXEL)
    above = noise.fbm(frame, scale, 5, key, 0.55) - threshold
    sunward = noise.fbm(Frame(frame.cols - east, frame.rows - south), scale, 5, key, 0.55) - threshold
    # opaque half a standard deviation inside the edge
    cloud = np.clip(above * np.float32(2.4), 0.0, 1.0)
    shadow = np.clip(sunward * np.float32(2.4), 0.0, 1.0) * (np.float32(1.0) - cloud)
    return Air(cloud, shadow, haze)


def beyond_swath(look: Acquisition, frame: Frame) -> np.ndarray:
    """Pixels without data, bool (H, W)."""
    if look.swath is None:
        return np.zeros(frame.shape, bool)
    east, south, distance = look.swath
    return frame.x[None, :] * east + frame.y[:, None] * south > distance
