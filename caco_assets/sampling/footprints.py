"""Footprints of georeferenced GeoTIFFs: the locations of a data set's images."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from caco_assets.core.errors import UserError
from caco_assets.core.progress import track
from caco_assets.core.raster_drivers import ForeignReferenceError, open_listed
from caco_assets.sampling.polygons import Shapes, clean

PATTERN = "**/*.tif*"
EDGE_STEP_M = 10_000
"""An edge that is straight in a projection is curved in degrees: a point every 10 km leaves a gap of 2 m."""
_METRES_PER_DEGREE = 111_320
_MOST_POINTS = 40


@dataclass(frozen=True)
class Footprints:
    """The distinct footprints of a folder."""

    names: list[str]
    """Path of the first file of each footprint, relative to the folder."""
    shapes: Shapes
    """In EPSG:4326; a footprint across the antimeridian is a MultiPolygon."""
    files: int
    """GeoTIFFs found."""
    refused: dict[str, str]
    """Relative path → why it has no footprint."""


def read_footprints(folder: Path, pattern: str = PATTERN) -> Footprints:
    """Footprints of all GeoTIFFs below a folder; bands and dates of one footprint count once.

    Args:
        folder: of the GeoTIFFs.
        pattern: which files, as for `Path.glob`, capitals or not: `**/*_B02.tif` opens one band of each BigEarthNet patch.

    Raises:
        UserError: no such folder, no file of that pattern, or none with a georeference.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    files = sorted(path for path in folder.glob(pattern, case_sensitive=False) if path.is_file())
    if not files:
        raise UserError(f"{folder}: no file matches {pattern}")
    shapes: dict[bytes, Polygon] = {}
    names, refused = [], {}
    for path in track(files, "footprints", len(files), "files"):
        name = path.relative_to(folder).as_posix()
        try:
            shape = raster_footprint(path)
        except ValueError as error:
            refused[name] = str(error)
            continue
        key = np.round(shapely.get_coordinates(shape), 7).tobytes()  # a centimetre
        if key not in shapes:
            shapes[key] = shape
            names.append(name)
    if not shapes:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:3])
        raise UserError(f"{folder}: none of the {len(files)} files has a footprint ({reasons})")
    return Footprints(names, np.array([_whole(shape) for shape in shapes.values()], object), len(files), refused)


def raster_footprint(path: Path) -> Polygon:
    """The outline of a raster in degrees, also of one that is rotated; it may still jump across the antimeridian.

    Raises:
        ValueError: it cannot be read, or is not georeferenced; one line without the folder's name.
    """
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_listed(str(path)) as raster:
                crs, transform, width, height = raster.crs, raster.transform, raster.width, raster.height
    except RasterioError as error:
        raise ValueError("not readable as a raster") from error
    except ForeignReferenceError as error:
        raise ValueError(str(error)) from error
    if crs is None or transform.is_identity:
        raise ValueError("has no georeference")
    metres = _METRES_PER_DEGREE if crs.is_geographic else 1
    longest = max(width * np.hypot(transform.a, transform.d), height * np.hypot(transform.b, transform.e)) * metres
    column, row = _outline(int(np.clip(np.ceil(longest / EDGE_STEP_M), 1, _MOST_POINTS)))
    x, y = transform @ (column * width, row * height)
    lon, lat = _to_degrees(crs.to_wkt()).transform(x, y)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise ValueError("lies outside its projection")
    return Polygon(np.column_stack([lon, lat]))


def write_footprints(found: Footprints, path: Path) -> None:
    """Write footprints as GeoParquet (columns `name`, `geometry`), or as GeoJSON, by the file's suffix.

    Raises:
        UserError: another suffix.
    """
    import geopandas as gpd

    frame = gpd.GeoDataFrame({"name": found.names}, geometry=found.shapes, crs="EPSG:4326")
    if path.suffix not in (".parquet", ".geojson"):
        raise UserError(f"{path}: footprints are written as .parquet or .geojson")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False, compression="zstd")
    else:
        frame.to_file(path, driver="GeoJSON")


def _outline(steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row, as shares of the raster, along its closed outline with `steps` pieces to an edge."""
    edge = np.arange(steps) / steps
    zero, one = np.zeros(steps), np.ones(steps)
    column = np.concatenate([edge, one, 1 - edge, zero, [0.0]])
    row = np.concatenate([zero, edge, one, 1 - edge, [0.0]])
    return column, row


@lru_cache(maxsize=256)
def _to_degrees(wkt: str):  # noqa: ANN202 - pyproj is imported where it is needed
    from pyproj import Transformer

    return Transformer.from_crs(wkt, 4326, always_xy=True)


def _whole(shape: Polygon) -> Polygon | MultiPolygon:
    """One geometry from the parts that `clean` makes of a footprint."""
    parts = clean(np.array([shape], object))
    return parts[0] if len(parts) == 1 else MultiPolygon(parts.tolist())
