"""Search cells: the 100 km squares of the UTM zones, on which Sentinel-2 tiles are based."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from caco_assets.imagery.geometry.chip_grid import Floats

SQUARE_M = 100_000.0
"""Side of an MGRS square (NGA.STND.0037); a Sentinel-2 tile is one of them, extended to 109.8 km east and south."""

MICRO = 1e6
"""Boxes end at millionths of a degree: short in a request, and the same on every machine."""


def cells(epsg: NDArray[np.int32], x: Floats, y: Floats) -> list[NDArray[np.int64]]:
    """Rows of the points in each square, neighbors near each other.

    Args:
        epsg: UTM zone of each point, (N,).
        x: easting in metres, (N,).
        y: northing, (N,).
    """
    keys = np.stack([epsg, x // SQUARE_M, y // SQUARE_M]).astype(np.int64)
    order = np.lexsort(keys[::-1])
    edges = np.flatnonzero((np.diff(keys[:, order]) != 0).any(axis=0)) + 1
    return np.split(order, edges) if len(order) else []


def box_around(footprints: NDArray[np.object_], epsg: int) -> tuple[float, float, float, float]:
    """Box in degrees around footprints of one UTM zone; west > east where they reach across the antimeridian."""
    middle = (epsg % 100) * 6 - 183.0
    lon, lat = shapely.get_coordinates(footprints).T
    # counted from the middle of the zone, a place on either side of the antimeridian is near
    around = (lon - middle + 180) % 360 - 180 + middle
    west, south = (np.floor(value.min() * MICRO) / MICRO for value in (around, lat))
    east, north = (np.ceil(value.max() * MICRO) / MICRO for value in (around, lat))
    return _wrapped(west), float(south), _wrapped(east), float(north)


def _wrapped(degrees: float) -> float:
    return round(float((degrees + 180) % 360 - 180), 6)
