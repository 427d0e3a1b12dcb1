"""Compares one chip of the archive with its index row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from caco_assets.core.errors import one_line
from caco_assets.imagery.archive.tar_store import open_tar
from caco_assets.imagery.geometry.chip_grid import Grid, chip_footprints

# A footprint is written from the grid itself; more than this many degrees (a centimetre) off is another grid.
_SAME_PLACE = 1e-7


class DamagedChipError(Exception):
    """The chip differs from its index row; the message says how."""


@dataclass(frozen=True)
class Found:
    """Grid and number of bands of a valid chip."""

    grid: Grid
    bands: int


def check_chip(shard: Path, row: Mapping[str, Any]) -> Found:
    """Read one chip and compare it with everything in its index row.

    Args:
        shard: folder of the shard.
        row: of its index: `offset`, `length`, `sha256`, `epsg`, `assets`, `geometry`.

    Raises:
        DamagedChipError: the first thing that differs.
    """
    data = _bytes(shard, row)
    try:
        with MemoryFile(data) as memory, memory.open(driver="GTiff") as raster:
            count, height, width = raster.read().shape
            epsg, place, bands = raster.crs and raster.crs.to_epsg(), raster.transform, list(raster.descriptions)
            kind = f"{raster.dtypes[0]} with nodata {raster.nodata}"
    except RasterioError as error:
        raise DamagedChipError(f"is no GeoTIFF ({one_line(error, 200)})") from error
    named = [band["name"] for band in row["assets"]["data"]["bands"]]
    if bands != named:
        raise DamagedChipError(f"has the bands {', '.join(map(str, bands))}, its index says {', '.join(named)}")
    if kind != "uint16 with nodata 0.0":
        raise DamagedChipError(f"is {kind}, not uint16 with nodata 0")
    if epsg != row["epsg"]:
        raise DamagedChipError(f"is in EPSG:{epsg}, its index says EPSG:{row['epsg']}")
    if height != width or place.b or place.d or place.a != -place.e:
        raise DamagedChipError(f"has {width}×{height} pixels of {place.a:g}×{place.e:g} m; a chip is square and north up")
    grid = Grid(epsg, place.c, place.f, width, place.a)
    edges = [shapely.bounds(shape) for shape in (chip_footprints([grid])[0], shapely.from_wkb(row["geometry"]))]
    if np.abs(edges[0] - edges[1]).max() > _SAME_PLACE:
        raise DamagedChipError("lies elsewhere than the footprint of its index")
    return Found(grid, count)


def _bytes(shard: Path, row: Mapping[str, Any]) -> bytes:
    with open_tar(shard) as stream:
        stream.seek(max(row["offset"], 0))
        data = stream.read(max(row["length"], 0))
    if len(data) != row["length"]:
        raise DamagedChipError(f"is cut short: {len(data)} of {row['length']} bytes")
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise DamagedChipError("is not what its index says (sha256)")
    return data
