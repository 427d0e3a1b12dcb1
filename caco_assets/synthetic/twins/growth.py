"""Pairs of pictures in which towns have grown, and what was built: the ground of the twins of building change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from caco_assets.synthetic.earth import noise
from caco_assets.synthetic.earth.earth import enlarged
from caco_assets.synthetic.twins import dense_scenes as scenes

RGB = ("B04", "B03", "B02")
ZOOM = 2
"""A pixel of the twin is 5 m; the authors' are 0.5 and 0.2 m."""


def pair(seed: int, twin: str, number: int, rows: int, cols: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, scenes.Place]:
    """Before and after (3, rows, cols) uint8, and 255 where something was built since (rows, cols) uint8.

    Args:
        seed: the Earth's.
        twin: name of the twin.
        number: of the pair.
        rows: pixels of the pictures, a multiple of `ZOOM`.
        cols: pixels of the pictures.
    """
    draw = noise.generator("growth dates", twin, seed, number)
    dates = [datetime(year, 4, 1, 10, 40, tzinfo=UTC) + timedelta(days=int(180 * draw.random())) for year in (2012, 2016)]
    happens = dates[0] + timedelta(days=30), dates[1] - timedelta(days=30)
    where = scenes.place(seed, twin, number, rows // ZOOM, cols // ZOOM, happens, scenes.GROWTH)
    view = where.view()
    built = [np.isin(scenes.cover(where, view, when), scenes.BUILT) for when in dates]
    pictures = [
        scenes.picture(scenes.reflectance(where, view, when, RGB), ZOOM, noise.key_of(twin, seed, number, date))
        for date, when in enumerate(dates)
    ]
    return pictures[0], pictures[1], enlarged((built[1] & ~built[0]).astype(np.uint8) * 255, ZOOM), where
