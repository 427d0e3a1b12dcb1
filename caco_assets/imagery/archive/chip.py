"""One chip, or a map of one place, as the bytes of a GeoTIFF, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from caco_assets.imagery.geometry.chip_grid import Grid

# Measured on 12 bands of 128²: deflate level 1 takes 5 ms, level 6 takes 7 ms and is no smaller with the horizontal predictor.
_PROFILE = {
    "driver": "GTiff",
    "dtype": "uint16",
    "nodata": 0,
    "compress": "deflate",
    "zlevel": 1,
    "predictor": 2,
    "interleave": "band",
}
_MAP_PROFILE = {**_PROFILE, "dtype": "float32", "nodata": float("nan"), "predictor": 3}


@dataclass(frozen=True)
class Chip:
    """Pixels of one place at one date."""

    location_id: str
    period: int
    """0 early, 1 late."""
    season: int
    pixels: NDArray[np.uint16]
    """(bands, H, W), reflectance × 10 000, 0 = no data."""
    lon: float
    lat: float


def encode(pixels: NDArray[np.uint16], bands: Sequence[str], grid: Grid) -> bytes:
    """A GeoTIFF of the pixels (bands, size, size); the same pixels give the same bytes."""
    with MemoryFile() as memory:
        with memory.open(
            **_PROFILE,
            width=grid.size,
            height=grid.size,
            count=len(bands),
            crs=f"EPSG:{grid.epsg}",
            transform=grid.transform,
            blockysize=grid.size,
        ) as raster:
            raster.write(pixels)
            for number, band in enumerate(bands, start=1):
                raster.set_band_description(number, band)
        return bytes(memory.getbuffer())


def encode_map(cells: NDArray[np.float32], grid: Grid) -> bytes:
    """A GeoTIFF of one float per cell, (size, size); the same cells give the same bytes."""
    place = {"crs": f"EPSG:{grid.epsg}", "transform": grid.transform}
    with MemoryFile() as memory:
        with memory.open(**_MAP_PROFILE, **place, width=grid.size, height=grid.size, count=1, blockysize=grid.size) as raster:
            raster.write(cells, 1)
        return bytes(memory.getbuffer())


def grid_of(data: bytes) -> Grid | None:
    """The grid of a chip's GeoTIFF; None if it has no EPSG code or its pixels are not square and north-up."""
    with MemoryFile(data) as memory, memory.open() as raster:
        transform, epsg = raster.transform, raster.crs.to_epsg() if raster.crs else None
        square = transform.b == transform.d == 0 and transform.a == -transform.e > 0 and raster.width == raster.height
        return Grid(epsg, transform.c, transform.f, raster.width, transform.a) if epsg and square else None


def decode(data: bytes, bands: Sequence[str] | None = None) -> NDArray[np.uint16]:
    """Pixels (bands, H, W) of a GeoTIFF; of `bands` alone, in that order, when given.

    Raises:
        ValueError: a band is not in the file.
    """
    with MemoryFile(data) as memory, memory.open(driver="GTiff") as raster:
        if bands is None:
            return raster.read()
        lacking = [band for band in bands if band not in raster.descriptions]
        if lacking:
            raise ValueError(f"bands={lacking}: the chip has {', '.join(str(name) for name in raster.descriptions)}")
        return raster.read([raster.descriptions.index(band) + 1 for band in bands])
