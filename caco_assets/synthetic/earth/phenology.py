"""How green the ground is through the year, by climate and hemisphere, and which crop stands on a field in which year."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np

from caco_assets.synthetic.earth.noise import Floats, uniform
from caco_assets.synthetic.earth.region import CLIMATES, Region

# Relative greenness at the middle of each month of the northern hemisphere.
_GRASS = {
    "tropical": (0.50, 0.42, 0.42, 0.50, 0.70, 0.90, 1.00, 1.00, 1.00, 0.95, 0.80, 0.65),
    "arid": (0.40, 0.45, 0.48, 0.40, 0.25, 0.15, 0.12, 0.14, 0.16, 0.20, 0.26, 0.33),
    "mediterranean": (0.75, 0.82, 0.92, 0.95, 0.75, 0.45, 0.28, 0.22, 0.28, 0.45, 0.60, 0.70),
    "temperate": (0.60, 0.60, 0.70, 0.88, 1.00, 1.00, 0.92, 0.88, 0.86, 0.80, 0.70, 0.62),
    "boreal": (0.18, 0.18, 0.20, 0.35, 0.75, 1.00, 1.00, 0.92, 0.72, 0.45, 0.28, 0.18),
}
_LEAVES = {
    "tropical": (0.90, 0.85, 0.85, 0.88, 0.95, 1.00, 1.00, 1.00, 1.00, 1.00, 0.95, 0.92),
    "arid": (0.60, 0.60, 0.65, 0.70, 0.70, 0.65, 0.60, 0.60, 0.60, 0.60, 0.60, 0.60),
    "mediterranean": (0.15, 0.15, 0.30, 0.70, 1.00, 1.00, 0.92, 0.85, 0.82, 0.65, 0.35, 0.18),
    "temperate": (0.00, 0.00, 0.05, 0.40, 0.95, 1.00, 1.00, 1.00, 0.90, 0.50, 0.12, 0.00),
    "boreal": (0.00, 0.00, 0.00, 0.08, 0.55, 1.00, 1.00, 0.95, 0.65, 0.20, 0.00, 0.00),
}
# Green cover of a field through its crop year, which starts on 1 August (knots in days from there).
_KNOTS = (0, 45, 75, 120, 180, 220, 255, 285, 310, 325, 340, 365)
_CROPS = {
    "winter cereal": (0.05, 0.05, 0.08, 0.30, 0.35, 0.55, 0.92, 1.00, 0.65, 0.20, 0.08, 0.05),
    "summer crop": (0.95, 0.70, 0.25, 0.05, 0.05, 0.05, 0.05, 0.12, 0.40, 0.70, 0.92, 0.95),
    "rape": (0.05, 0.25, 0.45, 0.50, 0.50, 0.65, 0.95, 0.95, 0.85, 0.50, 0.15, 0.05),
    "alfalfa": (0.80, 0.60, 0.75, 0.50, 0.45, 0.60, 0.85, 0.95, 0.55, 0.95, 0.60, 0.80),
    "fallow": (0.25, 0.25, 0.20, 0.15, 0.15, 0.20, 0.30, 0.35, 0.30, 0.28, 0.25, 0.25),
}
CROPS = tuple(_CROPS)
_CROP_SHARES = (0.40, 0.72, 0.80, 0.89, 1.0)
"""Cumulative shares of `CROPS`."""
_CROP_YEAR_START = 213


def day_of_season(region: Region, when: datetime) -> float:
    """Day of the year, half a year later in the southern hemisphere: 172 is midsummer everywhere."""
    day = float(when.astimezone(UTC).timetuple().tm_yday)
    return day if region.lat >= 0 else (day + 182.5) % 365.25


def _yearly(curves: dict[str, tuple[float, ...]], region: Region, day: Floats | float) -> Floats:
    months = np.arange(-1, 13) * 30.4375 + 15.2
    total = np.zeros(np.shape(day))
    for weight, name in zip(region.climate, CLIMATES, strict=True):
        curve = curves[name]
        total = total + weight * np.interp(np.mod(day, 365.25), months, (curve[-1], *curve, curve[0]))
    return total


def grass(region: Region, day: Floats | float) -> Floats:
    """Relative greenness of grassland, 0 to 1."""
    return _yearly(_GRASS, region, day)


def leaves(region: Region, day: Floats | float) -> Floats:
    """Share of leaves on deciduous trees, 0 to 1."""
    return _yearly(_LEAVES, region, day)


def crop_year(region: Region, when: datetime) -> int:
    """The agricultural year a date belongs to: it turns at the local midsummer's end."""
    utc = when.astimezone(UTC)
    start = date(utc.year, 8, 1) if region.lat >= 0 else date(utc.year, 2, 1)
    return utc.year + (utc.date() >= start)


def crops(region: Region, slots: int, year: int) -> np.ndarray:
    """Index into `CROPS` of the crop of every field slot in a crop year: rotated each year."""
    pick = uniform(np.arange(slots), np.full(1, year), region.sub("rotation"))
    return np.searchsorted(np.array(_CROP_SHARES), pick, side="right")


def field_cover(region: Region, when: datetime, slots: int) -> tuple[Floats, np.ndarray]:
    """Green cover of every field slot on a date and its crop; fields are sown up to two weeks apart (in the tropics, any time)."""
    sown = uniform(np.arange(slots), np.zeros(1, np.int64), region.sub("sown")) - 0.5
    spread = 28.0 + 200.0 * region.climate[0]
    day = np.mod(day_of_season(region, when) - _CROP_YEAR_START + sown * spread, 365.25)
    kind = crops(region, slots, crop_year(region, when))
    curves = np.stack([np.interp(day, _KNOTS, _CROPS[name]) for name in CROPS])  # (crops, slots)
    return curves[kind, np.arange(slots)], kind
