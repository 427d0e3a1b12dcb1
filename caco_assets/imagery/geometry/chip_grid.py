"""The pixel grid of a chip: in the UTM zone of its place, snapped to the resolution, the same for all dates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from caco_assets.imagery.geometry.footprint import across_antimeridian

if TYPE_CHECKING:
    from pyproj import Transformer

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """A square, north-up grid of pixels."""

    epsg: int
    left: float
    """Western edge in metres of the projection."""
    top: float
    """Northern edge."""
    size: int
    """Pixels on a side."""
    resolution: float
    """Metres per pixel."""

    @property
    def transform(self) -> Affine:
        """Pixel corner → projection."""
        return Affine(self.resolution, 0, self.left, 0, -self.resolution, self.top)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """left, bottom, right, top in metres."""
        side = self.size * self.resolution
        return self.left, self.top - side, self.left + side, self.top


def utm_epsg(lon: Floats, lat: Floats) -> NDArray[np.int32]:
    """EPSG code of the UTM zone on WGS 84 of each point: six degrees wide, without the exceptions around Norway."""
    zone = np.clip(((lon + 180) // 6).astype(np.int32), 0, 59) + 1
    return (np.where(lat >= 0, 32600, 32700) + zone).astype(np.int32)


def chip_grids(lon: Floats, lat: Floats, size: int, resolution: float) -> list[Grid]:
    """The grids of chips centred on the points (N,), as `chip_corners` places them."""
    corners = (column.tolist() for column in chip_corners(lon, lat, size, resolution))
    return [Grid(epsg, left, top, size, resolution) for epsg, left, top in zip(*corners, strict=True)]


def chip_corners(lon: Floats, lat: Floats, size: int, resolution: float) -> tuple[NDArray[np.int32], Floats, Floats]:
    """UTM zone, western and northern edge of chips centred on the points (N,).

    The edges are moved by at most half a pixel, onto multiples of the resolution: Sentinel-2 tiles start at multiples of 10,
    20 and 60 m, so at 10 m a chip's pixels are the tile's own.
    """
    codes, left, top = utm_epsg(lon, lat), np.empty(len(lon)), np.empty(len(lon))
    for epsg in np.unique(codes).tolist():
        rows = np.flatnonzero(codes == epsg)
        x, y = _transformer(4326, epsg).transform(lon[rows], lat[rows])
        left[rows] = np.round((np.asarray(x) - size * resolution / 2) / resolution) * resolution
        top[rows] = np.round((np.asarray(y) + size * resolution / 2) / resolution) * resolution
    return codes, left, top


def chip_footprints(grids: list[Grid]) -> NDArray[np.object_]:
    """Footprints of the grids as polygons in degrees, (N,)."""
    codes = np.array([grid.epsg for grid in grids], np.int32)
    boxes = np.array([grid.bounds for grid in grids], np.float64).reshape(-1, 4)
    shapes = np.empty(len(grids), object)
    for epsg in np.unique(codes).tolist():
        rows = np.flatnonzero(codes == epsg)
        shapes[rows] = box_footprints(epsg, boxes[rows])
    return shapes


def box_footprints(epsg: int, boxes: Floats) -> NDArray[np.object_]:
    """Footprints in degrees, (N,), of boxes (N, 4: left, bottom, right, top) in one UTM zone."""
    left, bottom, right, top = boxes.T
    x = np.stack([left, right, right, left, left], axis=1)  # (n, 5): the ring of a box
    y = np.stack([top, top, bottom, bottom, top], axis=1)
    lon, lat = _transformer(epsg, 4326).transform(x, y)
    shapes = np.asarray(shapely.polygons(np.stack([lon, lat], axis=-1)), object)
    west, _, east, _ = shapely.bounds(shapes).reshape(-1, 4).T
    for row in np.flatnonzero(east - west > 180).tolist():
        shapes[row] = across_antimeridian(shapes[row])
    return shapes


@cache
def _transformer(source: int, target: int) -> Transformer:
    from pyproj import Transformer

    return Transformer.from_crs(source, target, always_xy=True)
