"""A twin of OSCD: cities at two dates in 13 bands at 10 m, the three zips and lists as its authors ship them.

Every lasting change of cover counts as change, not that of towns alone; what the seasons do does not.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.synthetic.earth import noise
from caco_assets.synthetic.earth.earth import scaled_numbers
from caco_assets.synthetic.twins import dense_scenes as scenes

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
TRAIN = (
    *("aguasclaras", "bercy", "bordeaux", "nantes", "paris", "rennes", "saclay_e"),
    *("abudhabi", "cupertino", "pisa", "beihai", "hongkong", "beirut", "mumbai"),
)
TEST = ("brasilia", "montpellier", "norcia", "rio", "saclay_w", "valencia", "dubai", "lasvegas", "milano", "chongqing")
"""The authors' names; here they are places of the embedded Earth."""
_NAME = "Onera Satellite Change Detection dataset - "
_SIDES = (96, 114, 96, 126)
"""Pixels; some are no multiple of a tile."""


def write_twin(folder: Path, seed: int, count: int) -> Facts:
    """Write the three zips.

    Args:
        folder: made if need be.
        seed: the Earth's.
        count: images of each class in EuroSAT's twin, for the scale.
    """
    lists = {"train": TRAIN[: scenes.scaled(len(TRAIN), count, 4)], "test": TEST[: scenes.scaled(len(TEST), count, 2)]}
    with scenes.ZipWriter(folder) as write:
        progress = Progress("twin of OSCD", sum(map(len, lists.values())), "city")
        for part, cities in lists.items():
            write(f"{_NAME}Images.zip", f"{_NAME}Images/{part}.txt", ",".join(cities) + "\n")
            for city in cities:
                _city(write, seed, part, city, (*TRAIN, *TEST).index(city))
                progress.advance()
        progress.close()
    return {f"{part}_cities": len(cities) for part, cities in lists.items()}


def _city(write: scenes.Write, seed: int, part: str, city: str, number: int) -> None:
    rows, cols = _SIDES[number % 4], _SIDES[(number // 2) % 4]
    draw = noise.generator("oscd dates", seed, number)
    dates = [datetime(year, 3, 1, 10, 40, tzinfo=UTC) + timedelta(days=int(240 * draw.random())) for year in (2015, 2018)]
    where = scenes.place(seed, "oscd", number, rows, cols, (dates[0] + timedelta(days=30), dates[1] - timedelta(days=30)))
    view = where.view()
    images = f"{_NAME}Images/{city}"
    known = [band for band in BANDS if band != "B10"]
    for date, when in enumerate(dates, 1):
        apparent = scenes.through_air(scenes.reflectance(where, view, when, known), known, 0.65 + 0.3 * float(draw.random()))
        for band in BANDS:
            # the cirrus band sees almost nothing of the ground
            layer = np.full((rows, cols), np.float32(0.0012)) if band == "B10" else apparent[known.index(band)]
            write(f"{_NAME}Images.zip", f"{images}/imgs_{date}_rect/{band}.tif", scenes.tif(scaled_numbers(layer)[None], where))
    write(f"{_NAME}Images.zip", f"{images}/dates.txt", "".join(f"date_{n}: {when:%Y%m%d}\n" for n, when in enumerate(dates, 1)))
    changed = scenes.cover(where, view, dates[0]) != scenes.cover(where, view, dates[1])
    labels = f"{_NAME}{part.capitalize()} Labels"
    write(f"{labels}.zip", f"{labels}/{city}/cm/cm.png", scenes.png(changed.astype(np.uint8) * 255))
