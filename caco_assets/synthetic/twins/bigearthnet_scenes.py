"""Patches of the embedded Earth as BigEarthNet's are: 1.2 km of a level-2A product, labelled by what covers them.

How a label is decided: the true cover of every 10 m pixel is named by its class of CORINE Land Cover, and a patch has the labels
of all classes that cover at least 5 % of it. Thirteen of the forty-three classes are drawn; forest is broad-leaved, coniferous or
mixed by the share of conifers in its country, water that a coast explains is sea, other standing water is a lake.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from caco_assets.synthetic.earth import noise, weather
from caco_assets.synthetic.earth.earth import View, Window, digital_numbers
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
    Region,
    region,
)

SIDE = 120
"""Pixels of 10 m."""
LEAST = 0.05
"""Share of a patch from which on a class is a label."""
NAMES = {
    112: "Discontinuous urban fabric",
    121: "Industrial or commercial units",
    122: "Road and rail networks and associated land",
    211: "Non-irrigated arable land",
    222: "Fruit trees and berry plantations",
    231: "Pastures",
    311: "Broad-leaved forest",
    312: "Coniferous forest",
    313: "Mixed forest",
    321: "Natural grassland",
    511: "Water courses",
    512: "Water bodies",
    523: "Sea and ocean",
}
"""CORINE code → the authors' label."""
GROUPS = {
    112: "Urban fabric",
    121: "Industrial or commercial units",
    211: "Arable land",
    222: "Permanent crops",
    231: "Pastures",
    311: "Broad-leaved forest",
    312: "Coniferous forest",
    313: "Mixed forest",
    321: "Natural grassland and sparsely vegetated areas",
    511: "Inland waters",
    512: "Inland waters",
    523: "Marine waters",
}
"""CORINE code → label of the nineteen; 122 is in none."""
_CODES = {
    ANNUAL: 211,
    HERB: 321,
    HIGHWAY: 122,
    INDUSTRIAL: 121,
    PASTURE: 231,
    PERMANENT: 222,
    RESIDENTIAL: 112,
    RIVER: 511,
    SEALAKE: 512,
}
_CELLS = 6
"""Patches of a town on a side; a hashed choice of them is drawn."""
_OF_TOWN = 4
# How far on the land's side of the mean shore the sea can reach.
_SHORE_M = 700.0


@dataclass(frozen=True)
class Place:
    """Where one patch lies."""

    town: int
    col: int
    """Number of the patch in its product, from the west."""
    row: int
    """From the north."""


@dataclass(frozen=True)
class Patch:
    """One drawn patch."""

    place: Place
    bands: dict[str, np.ndarray]
    """uint16 at each band's own pixel size."""
    corine: np.ndarray
    """uint16 (120, 120) codes of CORINE Land Cover."""
    epsg: int
    west: float
    north: float
    when: datetime


def town_region(seed: int, kind: str, town: int) -> Region:
    """A town of a twin, somewhere in Europe; its name is no city of any gazetteer, so its country is its own."""
    draw = noise.generator("bigearthnet town", seed, kind, town)
    lon, lat = -9.0 + 38.0 * float(draw.random()), 37.0 + 27.0 * float(draw.random())
    return region(seed, f"*{kind}*/{town}", round(lon, 4), round(lat, 4))


def sensed(here: Region) -> datetime:
    """When the product of a town was taken: between June 2017 and May 2018, as the authors' were."""
    draw = noise.generator("bigearthnet scene", here.key)
    days, seconds = int(330 * float(draw.random())), int(3600 * float(draw.random()))
    return datetime(2017, 6, 13, 10, 0, tzinfo=UTC) + timedelta(days=days, seconds=seconds)


def places(seed: int, kind: str, count: int) -> list[Place]:
    """Where `count` patches lie, town after town; none overlaps another."""
    found: list[Place] = []
    town = 0
    while len(found) < count:
        here = town_region(seed, kind, town)
        ranks = np.argsort(noise.uniform(np.arange(_CELLS**2), np.zeros(1, np.int64), here.sub("patches")))
        found += [Place(town, int(rank % _CELLS), int(rank // _CELLS)) for rank in sorted(ranks[:_OF_TOWN])]
        town += 1
    return found[:count]


def draw(seed: int, kind: str, place: Place, cloudy: bool = False) -> Patch:
    """Draw a patch, cloudless or overcast."""
    here = town_region(seed, kind, place.town)
    half = _CELLS // 2
    west = here.origin[0] + 10.0 * SIDE * (place.col - half)
    north = here.origin[1] - 10.0 * SIDE * (place.row - half)
    when = sensed(here)
    view = View(here, Window(here.epsg, west, north, SIDE, SIDE))
    look = weather.acquisition(here, when, "overcast" if cloudy else "clear")
    look = replace(look, swath=None) if cloudy else replace(look, cloud=0.0, swath=None)
    image = view.render(look)
    bands = {name: digital_numbers(band, when) for name, band in image.bands.items()}
    return Patch(place, bands, corine_of(here, view.cover(when), west, north), here.epsg, west, north, when)


def corine_of(here: Region, cover: np.ndarray, west: float, north: float) -> np.ndarray:
    """uint16 codes of CORINE Land Cover of class codes (H, W) whose north-western corner lies at `west`, `north`."""
    table = np.zeros(256, np.uint16)
    for code, corine in _CODES.items():
        table[code] = corine
    table[FOREST] = 311 if here.conifers < 0.35 else 312 if here.conifers > 0.65 else 313
    codes = table[cover]
    if here.coast is not None:
        east, south, shore = here.coast
        x = west - here.origin[0] + 10.0 * (np.arange(cover.shape[1]) + 0.5)
        y = here.origin[1] - north + 10.0 * (np.arange(cover.shape[0]) + 0.5)
        seaward = x[None, :] * east + y[:, None] * south > shore - _SHORE_M
        codes[(cover == SEALAKE) & seaward] = 523
    return codes


def present(corine: np.ndarray) -> list[int]:
    """Codes that cover at least `LEAST` of a patch, in ascending order."""
    codes, counts = np.unique(corine, return_counts=True)
    return [int(code) for code, count in zip(codes, counts, strict=True) if count >= LEAST * corine.size]


def split_of(town: int) -> str:
    """Part of all patches of a town (half train, a quarter val, a quarter test), so that no part knows another's ground."""
    return ("train", "val", "test", "train")[town % 4]
