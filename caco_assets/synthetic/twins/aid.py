"""A twin of AID from towns that no catalog has: the authors' names, picture size and file type, twelve of their thirty classes.

The embedded Earth is drawn at 10 m, AID was photographed at 0.5 to 8 m: a scene is 600 m drawn at 10 m and enlarged ten times, so
it shows what lies there and how it is arranged, but no cars and no single trees. Only classes that the land cover tells truly are
drawn; `subset.json` beside the archive says which. The rules, on a 40 m sample of the cover (15 × 15 points; the middle is its
inner half):

* Forest, Farmland (annual and permanent crops), Meadow (pasture), Industrial, DenseResidential: at least 90, 85, 80, 60, 80 %;
* MediumResidential, SparseResidential: 35 to 65 % and 8 to 25 % built up, no industry;
* Beach: sea or lake 25 to 75 %, from one edge of the picture on, without town; Pond: water 3 to 30 %, none at the picture's edge;
* River: at least 10 %, some of it in the middle; Bridge: a motorway that touches a river in the middle;
* Viaduct: a motorway and the loops of a junction in the middle.

Motorways stand in no picture of another class, and neither do rivers.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.synthetic.earth import noise, terrain, weather
from caco_assets.synthetic.earth.earth import View, Window
from caco_assets.synthetic.earth.noise import Frame
from caco_assets.synthetic.earth.region import (
    ANNUAL,
    CLASSES,
    FOREST,
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
from caco_assets.synthetic.twins.subset_declaration import declare

NAMES: tuple[str, ...] = (
    "Beach",
    "Bridge",
    "DenseResidential",
    "Farmland",
    "Forest",
    "Industrial",
    "Meadow",
    "MediumResidential",
    "Pond",
    "River",
    "SparseResidential",
    "Viaduct",
)
"""The classes of AID that are drawn."""
SIDE = 60
"""Pixels of 10 m of a scene."""
ENLARGED = 10
NOTE = "twin drawn from the embedded Earth at 10 m and enlarged ten times"
_FULL_SCALE = 0.275
"""Reflectance shown as 255 at mean exposure."""
_STRIDE, _STEP, _REACH = 4, 24, 480
_PER_TOWN = 4
_JUNCTION_M = 40.0
_JPEG_QUALITY = 90
_ZIP_DATE = (2017, 4, 1, 0, 0, 0)


@dataclass(frozen=True)
class Pick:
    """A scene to draw."""

    name: str
    col: int
    row: int
    """First pixel, from the town's centre."""


def town_region(seed: int, town: int) -> Region:
    """A town of the twin, anywhere on Earth; its name is no city of any gazetteer, so its country is its own."""
    draw = noise.generator("aid town", seed, town)
    return region(
        seed, f"*aid*/{town}", round(-120.0 + 260.0 * float(draw.random()), 4), round(-38.0 + 96.0 * float(draw.random()), 4)
    )


def name_of(cover: np.ndarray, ramp: np.ndarray) -> str | None:
    """Class of a sampled scene, or None where no rule of the module's description fits.

    Args:
        cover: (n, n) class codes.
        ramp: (n, n) metres from the nearest loop of a junction.
    """
    share = dict(enumerate((np.bincount(cover.ravel(), minlength=len(CLASSES)) / cover.size).tolist()))
    quarter = cover.shape[0] // 4
    middle = cover[quarter:-quarter, quarter:-quarter]
    if (lines := _lines(share, middle, ramp[quarter:-quarter, quarter:-quarter])) is not None or share[HIGHWAY] or share[RIVER]:
        return lines
    if share[SEALAKE]:
        return _water(cover, share)
    return _land(share)


def _lines(share: dict[int, float], middle: np.ndarray, ramp: np.ndarray) -> str | None:
    motorway, river = middle == HIGHWAY, middle == RIVER
    if motorway.any() and river.any():
        beside = np.zeros_like(river)
        for axis in (0, 1):
            for shift in (-1, 1):
                beside |= np.roll(river, shift, axis)
        return "Bridge" if (motorway & beside)[1:-1, 1:-1].sum() >= 2 else None
    if motorway.any() and not share[RIVER] and (ramp < _JUNCTION_M).sum() >= 12:
        return "Viaduct"
    return "River" if river.any() and share[RIVER] >= 0.1 and not share[HIGHWAY] and share[SEALAKE] < 0.02 else None


def _water(cover: np.ndarray, share: dict[int, float]) -> str | None:
    built = share[RESIDENTIAL] + share[INDUSTRIAL]
    water = cover == SEALAKE
    edges = [edge.mean() for edge in (water[0], water[-1], water[:, 0], water[:, -1])]
    if 0.25 <= share[SEALAKE] <= 0.75 and max(edges) > 0.9 and built < 0.05:
        return "Beach"
    return "Pond" if 0.03 <= share[SEALAKE] <= 0.3 and max(edges) == 0 and built < 0.3 else None


def _land(share: dict[int, float]) -> str | None:
    built = share[RESIDENTIAL]
    pure = (
        ("Forest", share[FOREST], 0.9),
        ("Farmland", share[ANNUAL] + share[PERMANENT], 0.85),
        ("Meadow", share[PASTURE], 0.8),
        ("Industrial", share[INDUSTRIAL], 0.6),
        ("DenseResidential", built, 0.8),
    )
    for name, own, least in pure:
        if own >= least:
            return name
    if share[INDUSTRIAL]:
        return None
    if 0.35 <= built <= 0.65:
        return "MediumResidential"
    return "SparseResidential" if 0.08 <= built <= 0.25 else None


def candidates(seed: int, town: int) -> list[Pick]:
    """Scenes that a town offers, in a hashed order, none overlapping another."""
    here = town_region(seed, town)
    steps = np.arange(-_REACH, _REACH, _STRIDE)
    land = terrain.survey(here, Frame(steps, steps))
    side = SIDE // _STRIDE
    places = [(col, row) for row in range(-_REACH, _REACH - SIDE, _STEP) for col in range(-_REACH, _REACH - SIDE, _STEP)]
    ranks = noise.uniform(np.arange(len(places)), np.zeros(1, np.int64), here.sub("candidates"))
    taken: list[Pick] = []
    for number in np.argsort(ranks):
        # windows lie on the 60 m grid
        col, row = (6 * (value // 6) for value in places[number])
        if any(abs(col - pick.col) < SIDE and abs(row - pick.row) < SIDE for pick in taken):
            continue
        i, j = (row + _REACH) // _STRIDE, (col + _REACH) // _STRIDE
        name = name_of(land.cover[i : i + side, j : j + side], land.ramp[i : i + side, j : j + side])
        if name is not None and sum(pick.name == name for pick in taken) < _PER_TOWN:
            taken.append(Pick(name, col, row))
    return taken


def draw_scene(seed: int, town: int, pick: Pick) -> np.ndarray:
    """uint8 (600, 600, 3): a cloudless day of the growing season, exposed a little differently in each town."""
    from PIL import Image

    here = town_region(seed, town)
    draw = noise.generator("aid scene", here.key)
    # northern and southern summers half a year apart
    start = datetime(2016, 4 if here.lat >= 0 else 10, 15, 10, 40, tzinfo=UTC)
    when = start + timedelta(days=int(160 * draw.random()), hours=-int(here.lon / 15.0))
    exposure = 0.85 + 0.5 * float(draw.random())
    west, north = here.origin[0] + 10.0 * pick.col, here.origin[1] - 10.0 * pick.row
    view = View(here, Window(here.epsg, west, north, SIDE, SIDE))
    image = view.render(replace(weather.acquisition(here, when), cloud=0.0, haze=0.0, swath=None))
    bands = np.stack([image.bands[name] for name in ("B04", "B03", "B02")], axis=2)
    scaled = np.floor(bands * np.float32(255.0 * exposure / _FULL_SCALE) + np.float32(0.5))
    small = Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))
    return np.asarray(small.resize((SIDE * ENLARGED, SIDE * ENLARGED), Image.Resampling.BICUBIC))


def write_twin(folder: Path, seed: int, count: int) -> Facts:
    """Write `AID.zip` (`AID/<Class>/<class>_<n>.jpg`) and `subset.json`.

    Args:
        folder: of the twin.
        seed: of the Earth.
        count: images that EuroSAT's twin has in each class; this one has a fifth of them, at least ten.
    """
    from PIL import Image

    each = max(10, count // 5)
    numbers = dict.fromkeys(NAMES, 0)
    folder.mkdir(parents=True, exist_ok=True)
    town = 0
    progress = Progress("twin of AID", each * len(NAMES), "pictures")
    with zipfile.ZipFile(folder / "AID.zip", "w", zipfile.ZIP_STORED) as archive:
        while min(numbers.values()) < each:
            for pick in candidates(seed, town):
                if numbers[pick.name] == each:
                    continue
                numbers[pick.name] += 1
                buffer = io.BytesIO()
                Image.fromarray(draw_scene(seed, town, pick)).save(buffer, "JPEG", quality=_JPEG_QUALITY)
                member = f"AID/{pick.name}/{pick.name.lower()}_{numbers[pick.name]}.jpg"
                archive.writestr(zipfile.ZipInfo(member, _ZIP_DATE), buffer.getvalue())
                progress.advance()
            town += 1
    progress.close()
    declare(folder, numbers, NOTE)
    return {"pictures": sum(numbers.values()), "classes": len(numbers), "towns": town}
