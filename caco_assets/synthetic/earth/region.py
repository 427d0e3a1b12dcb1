"""What one city's surroundings are like: climate by latitude, and a hashed character (soils, roofs, fields, water, roads)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from caco_assets.synthetic.earth.noise import generator, key_of
from caco_assets.synthetic.earth.utm import epsg_of, project

CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)
"""EuroSAT's ten classes; a cover code is the index."""
ANNUAL, FOREST, HERB, HIGHWAY, INDUSTRIAL, PASTURE, PERMANENT, RESIDENTIAL, RIVER, SEALAKE = range(10)

CLIMATES = ("tropical", "arid", "mediterranean", "temperate", "boreal")
_CENTRES = (5.0, 22.0, 38.0, 51.0, 63.0)
"""Absolute latitude at which each climate is pure; in between, two mix."""
# How much of the open country is annual crop, forest, herbaceous, pasture, permanent crop, per climate.
_OPEN_LAND = {
    "tropical": (1.6, 2.6, 1.2, 1.2, 1.6),
    "arid": (1.6, 0.7, 2.4, 0.8, 1.6),
    "mediterranean": (2.0, 1.3, 1.9, 0.9, 2.2),
    "temperate": (2.4, 1.9, 1.1, 2.0, 0.9),
    "boreal": (1.2, 3.8, 1.4, 1.4, 0.4),
}
_SNAP_M = 60.0
"""World origin on the 60 m grid, so that 10, 20 and 60 m pixels of a tile nest."""


@dataclass(frozen=True)
class Course:
    """A line through the country: a river or a road."""

    direction: tuple[float, float]
    """Unit vector (east, south)."""
    offset: float
    """Metres from the city centre, across."""
    wavelength: float
    swing: float
    """How far it strays from straight, metres."""
    width: float
    key: int


@dataclass(frozen=True)
class Region:
    """The surroundings of one city in one UTM zone. Lengths in metres, shares in [0, 1]."""

    key: int
    lon: float
    lat: float
    epsg: int
    origin: tuple[float, float]
    """Easting and northing of the world origin: the city centre, snapped."""
    climate: tuple[float, ...]
    """Weight of each of `CLIMATES`."""
    open_land: tuple[float, ...]
    """Weights of annual crop, forest, herbaceous, pasture, permanent crop."""
    relief: float
    """Height of the hills (one standard deviation)."""
    rugged: float
    """Share of sharp ridges in the relief."""
    town: float
    """Radius of the built-up area."""
    industry: float
    """Share of industrial districts."""
    coast: tuple[float, float, float] | None
    """Direction (east, south) of the sea and the distance of the shore, or None inland."""
    lakes: float
    """Threshold of lake basins in standard deviations: higher is drier."""
    rivers: tuple[Course, ...]
    motorways: tuple[Course, ...]
    roads: tuple[Course, ...]
    parcel: tuple[float, float]
    """Mean length and width of fields."""
    soil: tuple[float, ...]
    """Weights of the soils of `spectra.SOILS`."""
    roofs: tuple[float, ...]
    """Weights of the roofs of `spectra.ROOFS`."""
    conifers: float
    water: tuple[float, float, float]
    """Weights of clear, turbid and green water."""
    dryness: float
    """How dry the grassland is, 0 to 1."""

    def sub(self, *names: str | int) -> int:
        """A key of this region for one purpose."""
        return key_of(self.key, *names)


def climate_of(lat: float) -> tuple[float, ...]:
    """Weight of each climate at a latitude; two neighbours share between their centres."""
    a = min(max(abs(lat), _CENTRES[0]), _CENTRES[-1])
    weights = []
    for k, centre in enumerate(_CENTRES):
        below = _CENTRES[k - 1] if k else centre - 1.0
        above = _CENTRES[k + 1] if k + 1 < len(_CENTRES) else centre + 1.0
        weights.append(max(0.0, (a - below) / (centre - below) if a <= centre else (above - a) / (above - centre)))
    return tuple(weights)


def region(seed: int, city: str, lon: float, lat: float, epsg: int | None = None) -> Region:
    """The surroundings of a city, drawn from (seed, city name) and its latitude.

    Args:
        seed: the Earth's seed.
        city: a name that tells cities apart (with its country).
        lon: longitude of the centre in degrees.
        lat: latitude of the centre in degrees.
        epsg: UTM zone to draw in; default the centre's own.
    """
    epsg = epsg or epsg_of(lon, lat)
    easting, northing = project(lon, lat, epsg)
    origin = (round(easting / _SNAP_M) * _SNAP_M, round(northing / _SNAP_M) * _SNAP_M)
    draw = generator("region", seed, city)

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(draw.random())

    def course(reach: tuple[float, float], wavelength: tuple[float, float], swing: tuple[float, float], width: float) -> Course:
        angle = between(0.0, 2.0 * math.pi)
        side = 1.0 if draw.random() < 0.5 else -1.0
        direction = (round(math.cos(angle), 9), round(math.sin(angle), 9))
        return Course(direction, side * between(*reach), between(*wavelength), between(*swing), width, int(draw.integers(2**32)))

    climate = climate_of(lat)
    open_land = tuple(
        sum(weight * _OPEN_LAND[name][k] for weight, name in zip(climate, CLIMATES, strict=True)) * between(0.5, 1.6)
        for k in range(5)
    )
    shore = between(0.0, 2.0 * math.pi)
    coast = (round(math.cos(shore), 9), round(math.sin(shore), 9), between(700.0, 2600.0)) if draw.random() < 0.45 else None
    wide = between(0.0, 1.0)
    return Region(
        key=key_of("region", seed, city),
        lon=lon,
        lat=lat,
        epsg=epsg,
        origin=origin,
        climate=climate,
        open_land=open_land,
        relief=15.0 + 220.0 * between(0.0, 1.0) ** 2,
        rugged=between(0.0, 1.0),
        town=between(650.0, 1500.0),
        industry=between(0.18, 0.42),
        coast=coast,
        lakes=between(1.1, 2.4),
        rivers=tuple(
            course((150.0, 1900.0), (900.0, 2600.0), (120.0, 420.0), width)
            for width in ([60.0 + 210.0 * wide * wide] if draw.random() < 0.85 else [])
            + ([between(25.0, 60.0)] if draw.random() < 0.4 else [])
        ),
        motorways=tuple(
            course((400.0, 1900.0), (1500.0, 5000.0), (60.0, 420.0), between(24.0, 38.0))
            for _ in range(1 + int(draw.random() < 0.6))
        ),
        roads=tuple(course((0.0, 2200.0), (700.0, 2000.0), (40.0, 220.0), between(6.0, 12.0)) for _ in range(4)),
        parcel=(between(220.0, 700.0), between(90.0, 400.0)),
        soil=tuple(between(0.0, 1.0) ** 3 for _ in range(5)),
        roofs=tuple(common * between(0.02, 1.0) ** 2 for common in (1.0, 0.8, 0.9, 0.22, 0.35)),
        conifers=between(0.0, 1.0),
        water=(between(0.0, 1.0) ** 2, between(0.0, 1.0) ** 2, between(0.0, 1.0) ** 2),
        dryness=between(0.0, 1.0),
    )
