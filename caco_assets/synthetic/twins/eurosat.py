"""A twin of EuroSAT from towns that no catalog has: the same classes, sizes, bands, units and file layouts as its authors ship.

How a label is decided: on a 40 m sample of the land cover under the picture (16 x 16 points). River: at least 15 % of it, some
of it in the middle half. Highway: at least 3 %, some of it in the middle half, and no River label. The other classes: at least
the share of the picture that `_PURITY` names (82 % where it names none), and less than 3 % of motorway and river. What fits none is
not used.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from caco_assets.core.atomic import write_atomic
from caco_assets.core.products import Facts
from caco_assets.synthetic.earth import level_1c, noise, terrain, weather
from caco_assets.synthetic.earth.earth import View, Window, enlarged, scaled_numbers
from caco_assets.synthetic.earth.noise import Frame
from caco_assets.synthetic.earth.region import CLASSES, FOREST, HIGHWAY, INDUSTRIAL, RESIDENTIAL, RIVER, SEALAKE, Region, region
from caco_assets.synthetic.twins.subset_declaration import declare

SIDE = 64
"""Pixels of a picture."""
BAND_ORDER = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
"""Band order of the authors' tif files."""
RGB_FULL_SCALE = 0.275
"""Apparent reflectance shown as 255 in the authors' jpg files."""
MS_FOLDER = Path("ds/images/remote_sensing/otherDatasets/sentinel_2/tif")
_JPEG_QUALITY = 100
"""The authors' quantisation tables are all ones."""
_STRIDE = 4
_REACH = 480
"""Half the side of the searched country in pixels."""
_STEP = 24
_PER_TOWN = 5
"""Most pictures of one class from one town."""
_PURITY = {SEALAKE: 0.9, FOREST: 0.92, RESIDENTIAL: 0.75, INDUSTRIAL: 0.7}
_ZIP_DATE = (2019, 1, 1, 0, 0, 0)

Pick = tuple[int, int, int]
"""label, first column, first row (pixels from the town's centre)"""


@dataclass(frozen=True)
class Picture:
    """One labelled picture."""

    label: int
    order: int
    """Hashed rank inside its class."""
    numbers: np.ndarray
    """uint16 (13, 64, 64), apparent reflectance x 10 000 in `BAND_ORDER`."""
    epsg: int
    west: float
    north: float


def town_region(seed: int, town: int) -> Region:
    """A town of the twin, somewhere in Europe; its name is no city of any gazetteer, so its country is its own."""
    draw = noise.generator("twin town", seed, town)
    return region(
        seed, f"*twin*/{town}", round(-9.0 + 38.0 * float(draw.random()), 4), round(36.0 + 26.0 * float(draw.random()), 4)
    )


def label_of(cover: np.ndarray) -> int | None:
    """Label of a sampled cover (n, n), or None; the rule stands in the module's description."""
    shares = np.bincount(cover.ravel(), minlength=len(CLASSES)) / cover.size
    quarter = cover.shape[0] // 4
    middle = cover[quarter:-quarter, quarter:-quarter]
    if shares[RIVER] >= 0.15 and (middle == RIVER).any() and shares[SEALAKE] < 0.1:
        return RIVER
    if shares[HIGHWAY] >= 0.03 and (middle == HIGHWAY).any() and shares[RIVER] < 0.15:
        return HIGHWAY
    best = int(np.argmax(shares))
    if best in (RIVER, HIGHWAY) or shares[RIVER] >= 0.03 or shares[HIGHWAY] >= 0.03:
        return None
    return best if shares[best] >= _PURITY.get(best, 0.82) else None


def candidates(seed: int, town: int) -> list[Pick]:
    """Pictures that a town offers, in a hashed order, none overlapping another."""
    here = town_region(seed, town)
    steps = np.arange(-_REACH, _REACH, _STRIDE)
    cover = terrain.survey(here, Frame(steps, steps)).cover
    side = SIDE // _STRIDE
    places = [(col, row) for row in range(-_REACH, _REACH - SIDE, _STEP) for col in range(-_REACH, _REACH - SIDE, _STEP)]
    ranks = noise.uniform(np.arange(len(places)), np.zeros(1, np.int64), here.sub("candidates"))
    taken: list[Pick] = []
    counts = np.zeros(len(CLASSES), int)
    for number in np.argsort(ranks):
        col, row = places[number]
        if any(abs(col - c) < SIDE and abs(row - r) < SIDE for _, c, r in taken):
            continue
        i, j = (row + _REACH) // _STRIDE, (col + _REACH) // _STRIDE
        label = label_of(cover[i : i + side, j : j + side])
        if label is not None and counts[label] < _PER_TOWN:
            counts[label] += 1
            taken.append((label, col, row))
    return taken


def towns(seed: int, count: int) -> list[tuple[int, list[Pick]]]:
    """As many towns as give `count` pictures of every class, each with the pictures to draw there."""
    lacking = np.full(len(CLASSES), count)
    chosen: list[tuple[int, list[Pick]]] = []
    town = 0
    while lacking.any():
        picks = []
        for pick in candidates(seed, town):
            if lacking[pick[0]] > 0:
                lacking[pick[0]] -= 1
                picks.append(pick)
        chosen.append((town, picks))
        town += 1
    return chosen


def draw_town(seed: int, town: int, picks: list[Pick]) -> list[Picture]:
    """Draw a town's pictures: cut from one scene, as the real ones are, so they share its date and its air."""
    here = town_region(seed, town)
    return [_picture(here, *pick) for pick in picks]


def _picture(here: Region, label: int, col: int, row: int) -> Picture:
    west, north = here.origin[0] + 10.0 * col, here.origin[1] - 10.0 * row
    draw = noise.generator("twin scene", here.key)
    # growing season and the weeks around it, as the real pictures show
    when = datetime(2018, 3, 1, 10, 40, tzinfo=UTC) + timedelta(days=int(245 * draw.random()), hours=-int(here.lon / 15.0))
    view = View(here, Window(here.epsg, west, north, 66, 66))
    # cloudless, as the real pictures were chosen; the air is added below
    look = replace(weather.acquisition(here, when), cloud=0.0, haze=0.0, swath=None)
    image = view.render(look)
    over = level_1c.column(draw)
    numbers = np.empty((len(BAND_ORDER), SIDE, SIDE), np.uint16)
    for position, band in enumerate(BAND_ORDER):
        if band == "B10":  # the cirrus band sees almost nothing of the ground
            apparent = np.full((SIDE, SIDE), np.float32(0.0008 + 0.0008 * float(draw.random())))
        else:
            surface = image.bands[band]
            n = 66 // surface.shape[0]
            apparent = level_1c.apparent(enlarged(surface, n)[:SIDE, :SIDE], band, over)
        numbers[position] = scaled_numbers(apparent)
    return Picture(label, noise.key_of("rank", here.key, col, row), numbers, here.epsg, west, north)


def rgb(numbers: np.ndarray) -> np.ndarray:
    """The authors' picture of a patch: B04, B03, B02 from 0 to `RGB_FULL_SCALE`, uint8 (64, 64, 3)."""
    bands = numbers[[BAND_ORDER.index(name) for name in ("B04", "B03", "B02")]].astype(np.float32)
    scaled = np.clip(np.floor(bands * np.float32(255.0 / (RGB_FULL_SCALE * 10_000)) + np.float32(0.5)), 0, 255)
    return scaled.astype(np.uint8).transpose(1, 2, 0)


def write_twin(folder: Path, seed: int, pictures: list[Picture]) -> Facts:
    """Write both variants and the split lists.

    `eurosat/EuroSAT.zip` (`2750/<Class>/<Class>_<n>.jpg`) with `split-{train,val,test}.txt` beside it, and
    `eurosat_ms/ds/images/…/tif/<Class>/<Class>_<n>.tif` with `subset.json`.
    """
    import rasterio
    from PIL import Image
    from rasterio.transform import from_origin

    (folder / "eurosat").mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    with zipfile.ZipFile(folder / "eurosat" / "EuroSAT.zip", "w", zipfile.ZIP_STORED) as archive:
        for label, name in enumerate(CLASSES):
            own = sorted(
                (picture for picture in pictures if picture.label == label), key=lambda picture: (picture.order, picture.west)
            )
            tifs = folder / "eurosat_ms" / MS_FOLDER / name
            tifs.mkdir(parents=True, exist_ok=True)
            for number, picture in enumerate(own, 1):
                stem = f"{name}_{number}"
                buffer = io.BytesIO()
                Image.fromarray(rgb(picture.numbers)).save(buffer, "JPEG", quality=_JPEG_QUALITY)
                archive.writestr(zipfile.ZipInfo(f"2750/{name}/{stem}.jpg", _ZIP_DATE), buffer.getvalue())
                with rasterio.open(
                    tifs / f"{stem}.tif",
                    "w",
                    driver="GTiff",
                    width=SIDE,
                    height=SIDE,
                    count=len(BAND_ORDER),
                    dtype="uint16",
                    interleave="pixel",
                    crs=f"EPSG:{picture.epsg}",
                    transform=from_origin(picture.west, picture.north, 10, 10),
                ) as target:
                    target.write(picture.numbers)
                names.append(f"{stem}.jpg")
    # the pictures in 13 bands have no lists, as the authors' have none
    counts = Counter(name.rpartition("_")[0] for name in names)
    declare(folder / "eurosat_ms", counts)
    splits = split_lists(seed, names)
    for split, members in splits.items():
        write_atomic(folder / "eurosat" / f"split-{split}.txt", "".join(f"{name}\n" for name in members))
    return {"pictures": len(names), **{f"{split}_pictures": len(members) for split, members in splits.items()}}


def split_lists(seed: int, names: list[str]) -> dict[str, list[str]]:
    """60 / 20 / 20 of each class, seeded; the order of `names` is kept in each list."""
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label in CLASSES:
        own = [name for name in names if name.rpartition("_")[0] == label]
        ranks = np.argsort(
            np.argsort(noise.uniform(np.arange(len(own)), np.zeros(1, np.int64), noise.key_of("split", seed, label)))
        )
        for name, rank in zip(own, ranks.tolist(), strict=True):
            place = rank / len(own)
            lists["train" if place < 0.6 else "val" if place < 0.8 else "test"].append(name)
    return lists
