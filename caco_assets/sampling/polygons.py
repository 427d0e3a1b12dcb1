"""Polygons in degrees: read from GIS files, made valid, cut at the antimeridian, and tested for points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from caco_assets.core.errors import UserError, one_line
from caco_assets.sampling.sphere import Floats

Shapes = NDArray[np.object_]
"""Shapely polygons, (N,), longitudes in [-180, 180]."""

_EDGE = 180 - 1e-9


def read_polygons(path: Path, field: str) -> Shapes:
    """All polygons of a file, in EPSG:4326.

    Args:
        path: GeoParquet (`.parquet`), GeoJSON, GeoPackage, or anything else that GDAL reads as vectors.
        field: of the settings that named the file, for the message of an error.

    Raises:
        UserError: no such file, not readable, no reference system, or no polygon in it.
    """
    import geopandas as gpd
    from pyogrio.errors import DataSourceError

    if not path.exists():
        raise UserError(f"{field}={path}: no such file")
    try:
        frame = gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)
    except (DataSourceError, ValueError, OSError) as error:
        raise UserError(f"{field}={path}: not readable as polygons ({one_line(error, 200)})") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise UserError(f"{field}={path}: has no geometry; give GeoParquet, GeoJSON or GeoPackage")
    if frame.crs is None:
        raise UserError(f"{field}={path}: has no coordinate reference system; write it with one (EPSG:4326)")
    shapes = clean(np.asarray(frame.to_crs(4326).geometry.array))
    if len(shapes) == 0:
        raise UserError(f"{field}={path}: holds no polygon; points and lines cover nothing")
    return shapes


def clean(shapes: Shapes) -> Shapes:
    """Valid single polygons of any geometries: lines, points and empty ones are dropped."""
    shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    parts = _polygons(shapes)
    broken = ~shapely.is_valid(parts)
    # e.g. a ring that touches itself, as in Natural Earth's 110m land
    parts = np.concatenate([parts[~broken], _polygons(shapely.make_valid(parts[broken]))])
    west, _, east, _ = shapely.bounds(parts).reshape(-1, 4).T
    wide = np.flatnonzero((east - west > 180) | (west < -180) | (east > 180))
    cut = [piece for index in wide.tolist() for piece in cut_at_antimeridian(parts[index])]
    return np.concatenate([np.delete(parts, wide), np.array(cut, object)])


def cut_at_antimeridian(polygon: Polygon) -> list[BaseGeometry]:
    """A polygon that goes across the antimeridian, as its parts on both sides; any other one unchanged.

    It may be drawn beyond ±180 degrees, or jump from 180 to -180: an edge longer than 180 degrees of longitude is assumed to be a
    jump, unless it runs from one edge of the map to the other (Antarctica).
    """
    lon = shapely.get_coordinates(polygon.exterior)[:, 0]
    jumps = (np.abs(np.diff(lon)) > 180) & ~((np.abs(lon[1:]) >= _EDGE) & (np.abs(lon[:-1]) >= _EDGE))
    if jumps.any():
        polygon = shapely.transform(
            polygon, lambda xy: np.column_stack([np.where(xy[:, 0] < 0, xy[:, 0] + 360, xy[:, 0]), xy[:, 1]])
        )
    elif np.abs(lon).max() <= 180:
        return [polygon]
    pieces = [
        shapely.transform(
            shapely.intersection(polygon, shapely.box(turn - 180, -90, turn + 180, 90)), lambda xy, turn=turn: xy - (turn, 0)
        )
        for turn in (-360, 0, 360)
    ]
    return [part for part in shapely.get_parts(pieces) if part.geom_type == "Polygon" and not part.is_empty]


def covered(shapes: Shapes, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
    """Which points (N,) in degrees lie in one of the polygons, their edges included."""
    shapely.prepare(shapes)
    # the tree is of the points, so that the large polygons are the prepared ones
    points = np.asarray(shapely.points(np.column_stack([lon, lat])), object)
    found = shapely.STRtree(points).query(shapes, predicate="intersects")[1]
    inside = np.zeros(len(lon), bool)
    inside[found] = True
    return inside


def enclosing_box(shapes: Shapes) -> tuple[float, float, float, float]:
    """The narrowest west, south, east, north around all polygons; west > east where it crosses the antimeridian."""
    west, south, east, north = shapely.bounds(shapes).T
    order = np.argsort(west)
    reached = np.maximum.accumulate(east[order])
    # the widest stretch of longitude without a polygon stays outside; the last one wraps around the map
    gaps = np.append(west[order][1:] - reached[:-1], west.min() + 360 - reached[-1])
    widest = int(np.argmax(gaps))
    if widest == len(order) - 1:
        return float(west.min()), float(south.min()), float(east.max()), float(north.max())
    return float(west[order][widest + 1]), float(south.min()), float(reached[widest]), float(north.max())


def _polygons(shapes: Shapes) -> Shapes:
    parts = shapely.get_parts(shapely.get_parts(shapes))  # twice: a collection may hold multipolygons
    return parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
