"""Footprints in degrees, cut at the antimeridian."""

from __future__ import annotations

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

POINTS_PER_EDGE = 21
"""An edge that is straight in a projection is curved in degrees; this many points follow it."""


def across_antimeridian(geometry: BaseGeometry) -> BaseGeometry:
    """The same area with longitudes in [-180, 180]: a polygon drawn across the antimeridian is cut in two.

    A polygon wider than 180° is assumed to jump from 180 to -180, as providers and corner transforms write it; one that
    extends beyond 180 or -180 is cut there.
    """
    west, _, east, _ = geometry.bounds
    if geometry.geom_type != "Polygon" or (east - west <= 180 and west >= -180 and east <= 180):
        return geometry
    unrolled = shapely.transform(geometry, lambda xy: np.column_stack([np.where(xy[:, 0] < 0, xy[:, 0] + 360, xy[:, 0]), xy[:, 1]]))
    left = shapely.intersection(unrolled, shapely.box(0, -90, 180, 90))
    right = translate(shapely.intersection(unrolled, shapely.box(180, -90, 360, 90)), xoff=-360)
    parts = [part for piece in (left, right) for part in shapely.get_parts(piece) if part.geom_type == "Polygon"]
    return MultiPolygon(parts)


def raster_footprint(bounds: tuple[float, float, float, float], crs: str) -> BaseGeometry:
    """Footprint in degrees of a north-up raster.

    Args:
        bounds: left, bottom, right, top in units of `crs`.
        crs: anything that pyproj accepts.
    """
    from pyproj import Transformer

    left, bottom, right, top = bounds
    ring = shapely.segmentize(shapely.box(left, bottom, right, top), max((right - left), (top - bottom)) / (POINTS_PER_EDGE - 1))
    x, y = shapely.get_coordinates(ring).T
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
    return across_antimeridian(Polygon(np.column_stack([lon, lat])))
