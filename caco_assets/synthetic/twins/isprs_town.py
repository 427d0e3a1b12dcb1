"""Areas of a German town with masks in the colours of ISPRS, of 5 m (the 10 m Earth enlarged; the authors have 5 and 9 cm).

True cover gives five of the six classes: at this size there are no cars.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from caco_assets.synthetic.earth import noise, region
from caco_assets.synthetic.earth.earth import enlarged
from caco_assets.synthetic.twins import dense_scenes as scenes

ZOOM = 2
COLOURS = ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0))
"""Impervious surfaces, building, low vegetation, tree, car, clutter."""
_CODES = {
    region.HIGHWAY: 0,
    region.RESIDENTIAL: 1,
    region.INDUSTRIAL: 1,
    region.ANNUAL: 2,
    region.HERB: 2,
    region.PASTURE: 2,
    region.FOREST: 3,
    region.PERMANENT: 3,
    region.RIVER: 5,
    region.SEALAKE: 5,
}


def area(seed: int, town: str, number: int, rows: int, cols: int, bands: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A picture (bands, rows, cols) and its mask in colour (3, rows, cols), both uint8.

    Args:
        seed: the Earth's.
        town: name of the twin.
        number: of the area.
        rows: pixels of the picture, a multiple of `ZOOM`.
        cols: pixels of the picture.
        bands: of the picture.
    """
    where = scenes.place(seed, town, number, rows // ZOOM, cols // ZOOM, reach=900.0)
    view = where.view()
    when = datetime(2012, 7, 1 + number % 20, 10, 40, tzinfo=UTC)
    surface = scenes.reflectance(where, view, when, bands)
    # a near infrared channel of its own exposure, or leaves would all be white
    surface = surface * np.array([0.5 if band == "B08" else 1.0 for band in bands], np.float32)[:, None, None]
    codes = enlarged(scenes.recoded(scenes.cover(where, view, when), _CODES, 5), ZOOM)
    colours = np.array(COLOURS, np.uint8)[codes].transpose(2, 0, 1)
    return scenes.picture(surface, ZOOM, noise.key_of(town, seed, number)), colours
