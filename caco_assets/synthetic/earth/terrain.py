"""Which of the ten classes lies where: relief, water, towns, roads, and zones of open country by distance, latitude, terrain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caco_assets.synthetic.earth import noise
from caco_assets.synthetic.earth.noise import Cells, Floats, Frame, Integers, Singles
from caco_assets.synthetic.earth.region import (
    ANNUAL,
    FOREST,
    HERB,
    HIGHWAY,
    INDUSTRIAL,
    PASTURE,
    PERMANENT,
    RESIDENTIAL,
    RIVER,
    SEALAKE,
    Course,
    Region,
)

_OPEN = np.array([ANNUAL, FOREST, HERB, PASTURE, PERMANENT], np.uint8)
ZONE_M = 850.0
"""Mean width of a zone of one land use: about one EuroSAT picture."""
DISTRICT_M = 520.0
_VILLAGE_M = 2300.0
_VILLAGES = 0.45
"""Share of the village lattice that is inhabited."""
_RAMP_M = 75.0
"""Radius of a motorway junction's loops."""


@dataclass(frozen=True)
class Land:
    """A surveyed window, all shapes (H, W)."""

    cover: np.ndarray
    """uint8 class codes."""
    height: Singles
    slope_east: Singles
    """Metres of rise per metre east."""
    slope_south: Singles
    depth: Singles
    """Metres into the water from its shore (negative on land), for lakes and the sea."""
    river: Singles
    """Metres from the nearest river's bank, negative in the river."""
    motorway: Singles
    """Metres from the nearest carriageway's middle line."""
    ramp: Singles
    """Metres from the nearest junction loop."""
    road: Singles
    """Metres from the nearest country road."""
    zone: Cells
    district: Cells
    centre: Singles
    """Distance from the city centre over the town's radius."""


def relief(region: Region, frame: Frame) -> Singles:
    """Height in metres, shape (H, W)."""
    hills = noise.fbm(frame, 2600.0, 5, region.sub("hills"), 0.4)
    ridges = 1.0 - 1.6 * np.abs(noise.fbm(frame, 1100.0, 5, region.sub("ridges"), 0.45))
    return (np.float32(region.relief) * (hills + np.float32(0.8 * region.rugged) * ridges)).astype(np.float32)


def _along(region_course: Course, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Metres along the course and signed metres across from it."""
    c, s = region_course.direction
    u, v = x * c + y * s, y * c - x * s
    wide, wide_slope = noise.line(u.ravel(), region_course.wavelength, region_course.key)
    fine, fine_slope = noise.line(u.ravel(), region_course.wavelength / 2.7, region_course.key ^ 0x5BD1E995)
    shift = (region_course.swing * (wide + 0.35 * fine)).reshape(u.shape)
    slope = (region_course.swing * (wide_slope + 0.35 * fine_slope)).reshape(u.shape)
    return u, (v - region_course.offset - shift) / np.sqrt(1.0 + slope * slope)


def _rivers(region: Region, x: Floats, y: Floats) -> Singles:
    bank = np.full(x.shape, 1e6)
    for course in region.rivers:
        u, across = _along(course, x, y)
        swell, _ = noise.line(u.ravel(), 700.0, course.key ^ 0x1234)
        bank = np.minimum(bank, np.abs(across) - 0.5 * course.width * (1.0 + 0.35 * swell.reshape(u.shape)))
    return bank.astype(np.float32)


def _motorways(region: Region, x: Floats, y: Floats) -> tuple[Singles, Singles]:
    """Distance to the middle line, and to the loops of junctions (about one in 2.2 km)."""
    middle, ramp = np.full(x.shape, 1e6), np.full(x.shape, 1e6)
    for course in region.motorways:
        u, across = _along(course, x, y)
        middle = np.minimum(middle, np.abs(across))
        number = np.floor(u / 2200.0).astype(np.int64)
        at = (number + 0.3 + 0.4 * noise.uniform(number, np.zeros(1, np.int64), course.key ^ 0x77)) * 2200.0
        du, dv = np.abs(u - at) - _RAMP_M, np.abs(across) - _RAMP_M
        ramp = np.minimum(ramp, np.abs(np.sqrt(du * du + dv * dv) - _RAMP_M))
        # the road that crosses here
        ramp = np.minimum(ramp, np.where(np.abs(across) < 600.0, np.abs(u - at), 1e6))
    return middle.astype(np.float32), ramp.astype(np.float32)


def _roads(region: Region, x: Floats, y: Floats) -> Singles:
    nearest = np.full(x.shape, 1e6)
    for course in region.roads:
        nearest = np.minimum(nearest, np.abs(_along(course, x, y)[1]) - 0.5 * (course.width - 8.0))
    return nearest.astype(np.float32)


def _depth(region: Region, frame: Frame, x: Floats, y: Floats, distance: Floats) -> Singles:
    basin = noise.fbm(frame, 1500.0, 4, region.sub("lakes"))
    # a basin's slope is about one standard deviation in 500 m; no lake in the middle of the town
    depth = (basin - np.float32(region.lakes) - np.float32(1.2) / (1.0 + (distance / region.town) ** 2)) * 500.0
    if region.coast is not None:
        east, south, shore = region.coast
        depth = np.maximum(depth, x * east + y * south - shore + 260.0 * noise.fbm(frame, 1300.0, 5, region.sub("shore")))
    return depth.astype(np.float32)


def _open_country(region: Region, zone: Cells, height: Singles, bank: Singles) -> np.ndarray:
    steep = np.clip(0.5 + height / (4.0 * region.relief), 0.0, 1.0)
    near_river = (bank < 250.0).astype(np.float32)
    annual, forest, herb, pasture, permanent = region.open_land
    weights = (
        annual * (1.5 - steep),
        forest * (0.4 + 1.2 * steep) * (1.0 - 0.3 * near_river),
        herb * (0.6 + 0.8 * steep),
        pasture * (0.8 + 0.6 * near_river),
        permanent * (1.3 - 0.6 * steep),
    )
    pick = zone.pick(region.sub("use")) * sum(weights)
    choice = np.zeros(pick.shape, np.int64)
    edge = np.zeros(pick.shape)
    for weight in weights[:-1]:
        edge = edge + weight
        choice += pick >= edge
    return _OPEN[choice]


def _town(region: Region, x: Floats, y: Floats, lumps: Singles, centre: Singles) -> np.ndarray:
    core = 1.0 / (1.0 + centre * centre) + 0.14 * lumps > 0.5
    village = noise.cells(x.ravel(), y.ravel(), _VILLAGE_M, region.sub("village"))
    inhabited = village.pick(region.sub("inhabited")) < _VILLAGES
    radius = 130.0 + 360.0 * village.pick(region.sub("radius"))
    return core | (inhabited & (village.nearest + 70.0 * lumps.ravel() < radius)).reshape(x.shape)


def _districts(region: Region, district: Cells, motorway: Singles, centre: Singles) -> np.ndarray:
    pick = district.pick(region.sub("district"))
    industrial = region.industry * np.clip(0.35 + 0.9 * centre, 0.35, 1.3) + np.where(motorway < 450.0, 0.22, 0.0)
    cover = np.where(pick < industrial, INDUSTRIAL, RESIDENTIAL)
    park = pick > 0.94
    return np.where(park, np.where(pick > 0.97, HERB, FOREST), cover).astype(np.uint8)


def _differences(height: Singles) -> tuple[Singles, Singles]:
    half = np.float32(0.5 / noise.PIXEL)
    return (height[1:-1, 2:] - height[1:-1, :-2]) * half, (height[2:, 1:-1] - height[:-2, 1:-1]) * half


def survey(region: Region, frame: Frame) -> Land:
    """The land under a window before any change, pointwise in world coordinates (a strided frame gives the strided map)."""
    padded = Frame(_beside(frame.cols), _beside(frame.rows))
    height = relief(region, padded)
    slope_east, slope_south = _differences(height)
    height = height[1:-1, 1:-1]
    x, y = np.meshgrid(frame.x, frame.y)
    distance = np.sqrt(x * x + y * y)
    centre = (distance / region.town).astype(np.float32)

    warp_x, warp_y = noise.fbm(frame, 320.0, 3, region.sub("warp x")), noise.fbm(frame, 320.0, 3, region.sub("warp y"))
    wx, wy = (x + 28.0 * warp_x).ravel(), (y + 28.0 * warp_y).ravel()
    zone = _shaped(noise.cells(wx, wy, ZONE_M, region.sub("zone")), x.shape)
    district = _shaped(noise.cells(x.ravel(), y.ravel(), DISTRICT_M, region.sub("district cells")), x.shape)
    bank, road = _rivers(region, x, y), _roads(region, x, y)
    motorway, ramp = _motorways(region, x, y)
    depth = _depth(region, frame, x, y, distance)

    cover = _open_country(region, zone, height, bank)
    town = _town(region, x, y, warp_x, centre)
    cover = np.where(town, _districts(region, district, motorway, centre), cover)
    cover[depth > 0] = SEALAKE
    cover[(bank < 0) & (depth <= 0)] = RIVER
    half = max(course.width for course in region.motorways) / 2.0
    cover[((motorway < half + 4.0) | (ramp < 8.0)) & (depth <= 0)] = HIGHWAY
    return Land(cover, height, slope_east, slope_south, depth, bank, motorway, ramp, road, zone, district, centre)


def _beside(index: Integers) -> Integers:
    """The index with one more pixel at each end."""
    return np.concatenate([index[:1] - 1, index, index[-1:] + 1])


def _shaped(flat: Cells, shape: tuple[int, int]) -> Cells:
    return Cells(flat.i.reshape(shape), flat.j.reshape(shape), flat.nearest.reshape(shape), flat.second.reshape(shape))
