"""Reads one date of the published layout: the pixels of a chip and their position."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from caco_assets.imagery.geometry.chip_grid import Grid, chip_grids
from caco_assets.imagery.reading.file_facts import Said, facts_of
from caco_assets.imagery.reading.gdal import UnreadableError, open_raster
from caco_assets.imagery.reading.resample import SNAP
from caco_assets.imagery.scenes.band_names import contradiction
from caco_assets.imagery.scenes.radiometry import UNITS, Radiometry, harmonize, missing
from caco_assets.imagery.seco_layout.layout import DateFolder, band_file, published_name

logger = logging.getLogger(__name__)

DEGREE_M = 111_320.0
"""Approximate meters per degree along a meridian."""
SIDE_TOLERANCE = 0.1
"""A box in degrees only approximates the chip: share of the side by which it may differ."""
_EXACT = 1e-3

_SCALES = {"uint8": 1 / 255, "uint16": 1 / UNITS, "int16": 1 / UNITS}
"""Reflectance per digital number by type, if neither the file nor the user gives it: uint8 as published, 16 bits as Sentinel-2."""


@dataclass(frozen=True)
class Numbers:
    """The meaning of the files' numbers from the settings; None: from the file's own tags, else from its type."""

    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None

    def said(self) -> Said:
        """The same, as `FileFacts` takes it."""
        return Said(self.scale, self.offset, self.nodata, nodata_of_file=self.nodata is None)


@dataclass(frozen=True)
class Position:
    """The position of a date's pixels."""

    grid: Grid
    lon: float
    lat: float
    """Middle of the chip, degrees."""
    exact: bool
    """Whether the file is in UTM: its pixels are the grid's. Otherwise the grid is centered on the middle of its box in degrees."""

    def agrees(self, other: Position) -> bool:
        """Whether both are the same place: the same grid, or middles closer than a tenth of the side."""
        if self.exact and other.exact:
            return self.grid == other.grid
        east = (self.lon - other.lon + 180) % 360 - 180
        metres = DEGREE_M * math.hypot(self.lat - other.lat, east * math.cos(math.radians(self.lat)))
        return metres <= SIDE_TOLERANCE * self.grid.size * self.grid.resolution


def read_pixels(date: DateFolder, bands: tuple[str, ...], numbers: Numbers, size: int) -> NDArray[np.uint16]:
    """Pixels (bands, size, size) of a date, reflectance × 10 000, 0 = no data; coarser bands are interpolated to the size.

    Raises:
        UnreadableError: a band's file is missing, cut off, of another size, or holds several bands or another one.
    """
    layers, lost, zero, meanings = [], [], [], []
    for band in bands:
        path = band_file(date.path, band)
        if path is None:
            raise UnreadableError("incomplete", f"lacks {published_name(band)}.tif")
        with _opened(path, band) as raster:
            facts, layer = facts_of(raster), raster.read(1)
            left_out = raster.read_masks(1) == 0 if facts.masked else np.zeros(layer.shape, bool)
        (meaning,) = facts.radiometry(numbers.said(), Radiometry(_SCALES.get(facts.dtype, 1.0), 0.0, None))
        for note in facts.contradictions(numbers.said()):
            _log_once(f"{band}: the file {note}")
        meanings.append(meaning)
        # see `radiometry.has_data`: a 0 empties a pixel only together with the other bands
        gone = left_out | missing(layer, None if meaning.nodata == 0 else meaning.nodata)
        layers.append(_to_size(np.where(gone, layer.dtype.type(0), layer), size, path.name))
        lost.append(_to_size(gone, size, path.name) > SNAP)
        # among the band's own pixels: interpolation must neither create an empty one from its neighbors nor hide one
        dark = (layer == 0) & (meaning.nodata == 0)
        zero.append(dark.repeat(size // len(dark), 0).repeat(size // len(dark), 1))
    scale, offset = (np.array([getattr(meaning, name) for meaning in meanings]) for name in ("scale", "offset"))
    return harmonize(np.stack(layers), scale, offset, ~(np.any(lost, axis=0) | np.all(zero, axis=0)))


@cache
def _log_once(note: str) -> None:
    """Of a hundred thousand files of a set, one says it."""
    logger.info(note)


def read_position(date: DateFolder, bands: tuple[str, ...], size: int, resolution: float) -> Position:
    """The position of a date, from the first band present.

    Raises:
        UnreadableError: no band is present, or its georeference does not fit chips of this size.
    """
    found = next(((path, band) for band in bands if (path := band_file(date.path, band)) is not None), None)
    if found is None:
        raise UnreadableError("incomplete", f"has none of {', '.join(f'{published_name(band)}.tif' for band in bands)}")
    path, _ = found
    with _opened(*found) as raster:
        left, bottom, right, top = raster.bounds
        epsg, degrees = raster.crs.to_epsg() or 0, raster.crs.is_geographic
    side = size * resolution
    if degrees:
        lon, lat = (left + right) / 2, (bottom + top) / 2
        width, height = (right - left) * DEGREE_M * math.cos(math.radians(lat)), (top - bottom) * DEGREE_M
        _check_side(path.name, width, height, side, SIDE_TOLERANCE)
        return Position(chip_grids(np.array([lon]), np.array([lat]), size, resolution)[0], lon, lat, exact=False)
    if epsg // 100 not in (326, 327):
        raise UnreadableError("unreadable", f"{path.name} is in EPSG:{epsg or '?'}, neither UTM on WGS 84 nor degrees")
    _check_side(path.name, right - left, top - bottom, side, _EXACT)
    return Position(Grid(epsg, left, top, size, resolution), *_middle(epsg, (left + right) / 2, (bottom + top) / 2), exact=True)


@contextmanager
def _opened(path: Path, band: str) -> Iterator[DatasetReader]:
    """`open_raster` of a band's file, whose refusals name the file."""
    try:
        with open_raster(str(path)) as raster:
            if raster.count != 1:
                raise UnreadableError("unreadable", f"has {raster.count} bands, not one")
            if (wrong := contradiction(raster.descriptions, (band,), "its file name")) is not None:
                raise UnreadableError("unreadable", wrong)
            yield raster
    except UnreadableError as error:
        raise UnreadableError(error.reason, f"{path.name}: {error.detail}") from error


def _to_size(layer: NDArray, size: int, name: str) -> NDArray[np.float32]:
    height, width = layer.shape
    if height != width or size % height:
        raise UnreadableError("unreadable", f"{name} has {width}×{height} pixels, not {size}×{size} or a whole fraction of it")
    if height == size:
        return layer.astype(np.float32)
    # the hat function: weights of linear interpolation between the centres of the coarse pixels
    position = np.clip((np.arange(size) + 0.5) * height / size - 0.5, 0, height - 1)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(height)[None])).astype(np.float32)  # (size, height)
    return weights @ layer.astype(np.float32) @ weights.T


def _check_side(name: str, width: float, height: float, side: float, tolerance: float) -> None:
    if max(abs(width - side), abs(height - side)) > tolerance * side:
        raise UnreadableError(
            "unreadable", f"{name} covers {width:.0f}×{height:.0f} m, not {side:.0f}: see imagery.chip_size and resolution"
        )


def _middle(epsg: int, x: float, y: float) -> tuple[float, float]:
    from pyproj import Transformer

    return Transformer.from_crs(epsg, 4326, always_xy=True).transform(x, y)
