"""Reads a window of an open raster onto a chip's grid of the same projection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.reading.file_facts import has_mask
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.scenes.radiometry import finite_nodata, missing

# Pixel positions nearer to a whole number than this are whole: float noise in a file's transform.
SNAP = 1e-3
_AROUND = 4
"""Pixels around a chip that interpolation may use."""


def read_grid(raster: DatasetReader, indexes: list[int], grid: Grid, *, nearest: bool, nodata: float | None) -> NDArray:
    """Bands of a raster on the grid of a chip.

    If the raster's own pixels are the grid's, they are copied; another size or phase of pixels is interpolated (bilinear, or
    the nearest for classes; the mean where the raster is finer); another projection goes through a warped view.

    Args:
        raster: open and north up.
        indexes: band numbers, from 1.
        grid: the chip's.
        nearest: for bands that hold classes.
        nodata: value that marks missing data and must not be mixed into its neighbors; None: none does. Numbers that are not
            finite, and pixels that the raster's own mask leaves out, are missing in any case.

    Returns:
        (len(indexes), size, size) of the raster's type, or float32 where interpolated or where the raster has a mask: missing
        pixels are `nodata`, or not finite.

    Raises:
        UnreadableError: `outside_footprint`, the chip reaches beyond the raster.
        RasterioError: the file cannot be read there.
    """
    same = raster.crs.to_epsg() == grid.epsg
    _check_inside(raster, grid, same=same)
    read = _masked if has_mask(raster) else _warped if not same else _unmasked
    return read(raster, indexes, grid, nearest=nearest, nodata=nodata)


def _unmasked(raster: DatasetReader, indexes: list[int], grid: Grid, *, nearest: bool, nodata: float | None) -> NDArray:
    """`read_grid` of a raster in the projection of the grid."""
    place = raster.transform
    if abs(place.a + place.e) > SNAP:
        return _warped(raster, indexes, grid, nearest=nearest, nodata=nodata)
    step = grid.resolution / place.a
    column, row = (grid.left - place.c) / place.a, (place.f - grid.top) / place.a
    if abs(step - 1) < SNAP and abs(column - round(column)) < SNAP and abs(row - round(row)) < SNAP:
        return raster.read(indexes, window=Window(round(column), round(row), grid.size, grid.size))  # pyright: ignore[reportCallIssue]
    if step > 1 + SNAP and not nearest:
        return _warped(raster, indexes, grid, nearest=nearest, nodata=nodata)
    if nearest:
        rows, down = _nearest(row, step, grid.size, raster.height)
        columns, right = _nearest(column, step, grid.size, raster.width)
        return raster.read(indexes, window=_window(rows, columns))[:, down[:, None], right[None, :]]
    rows, between_rows = _linear(row, step, grid.size, raster.height)
    columns, between_columns = _linear(column, step, grid.size, raster.width)
    source = raster.read(indexes, window=_window(rows, columns))  # (bands, h, w): smaller than the chip
    lost, numbers = missing(source, None), source.astype(np.float32)
    numbers[lost] = 0  # else it would spread to neighbors that it has no share in
    mixed = _between(_between(numbers, between_rows, axis=1), between_columns, axis=2)  # (bands, size, size)
    for empty, value in ((missing(source, nodata) & ~lost, nodata), (lost, np.nan)):
        if empty.any():
            touched = _between(_between(empty.astype(np.float32), between_rows, axis=1), between_columns, axis=2)
            mixed = np.where(touched > SNAP, np.float32(value), mixed)
    return mixed


def _window(rows: range, columns: range) -> Window:
    return Window(columns.start, rows.start, len(columns), len(rows))  # pyright: ignore[reportCallIssue]


def _check_inside(raster: DatasetReader, grid: Grid, *, same: bool) -> None:
    left, bottom, right, top = grid.bounds if same else transform_bounds(grid_crs(grid), raster.crs, *grid.bounds)
    bounds = raster.bounds
    slack_x, slack_y = SNAP * (bounds.right - bounds.left) / raster.width, SNAP * (bounds.top - bounds.bottom) / raster.height
    if (
        left < bounds.left - slack_x
        or right > bounds.right + slack_x
        or bottom < bounds.bottom - slack_y
        or top > bounds.top + slack_y
    ):
        raise UnreadableError("outside_footprint", "the chip reaches beyond the edge of the image")


def grid_crs(grid: Grid) -> str:
    """The grid's projection as a rasterio CRS."""
    return f"EPSG:{grid.epsg}"


def _warped(raster: DatasetReader, indexes: list[int], grid: Grid, *, nearest: bool, nodata: float | None) -> NDArray:
    finer = not nearest and _metres(raster, grid) < grid.resolution / 1.5
    method = Resampling.nearest if nearest else Resampling.average if finer else Resampling.bilinear
    options = {} if nodata is None else {"src_nodata": nodata, "nodata": nodata}
    # see `radiometry.has_data`: a 0 in one band alone is a measurement, any other declared value is none in its band either
    together = "YES" if nodata is None or nodata == 0 else "NO"
    with WarpedVRT(
        raster,
        crs=grid_crs(grid),
        transform=grid.transform,
        width=grid.size,
        height=grid.size,
        resampling=method,
        UNIFIED_SRC_NODATA=together,
        **options,
    ) as view:
        return view.read(indexes)


def _masked(raster: DatasetReader, indexes: list[int], grid: Grid, *, nearest: bool, nodata: float | None) -> NDArray:
    """`read_grid` of a raster with a mask: of a copy of the pixels around the chip, in which those left out are marked."""
    around = transform_bounds(grid_crs(grid), raster.crs, *grid.bounds, densify_pts=21)
    needed = raster.window(*around)
    left, top = (max(math.floor(edge) - _AROUND, 0) for edge in (needed.col_off, needed.row_off))
    right = min(math.ceil(needed.col_off + needed.width) + _AROUND, raster.width)
    bottom = min(math.ceil(needed.row_off + needed.height) + _AROUND, raster.height)
    window = Window(left, top, right - left, bottom - top)  # pyright: ignore[reportCallIssue]
    numbers, left_out = raster.read(indexes, window=window), raster.read_masks(indexes, window=window) == 0
    if nearest:
        empty = 0.0 if nodata is None else nodata
    else:
        numbers, left_out, empty = numbers.astype(np.float32), left_out | missing(numbers, nodata), math.nan
    numbers[left_out] = empty
    shape = {"count": len(indexes), "height": window.height, "width": window.width, "dtype": numbers.dtype}
    place = {"crs": raster.crs, "transform": raster.window_transform(window)}
    with MemoryFile() as memory, memory.open(driver="GTiff", nodata=empty, **shape, **place) as copy:
        copy.write(numbers)
        return read_grid(copy, list(range(1, len(indexes) + 1)), grid, nearest=nearest, nodata=finite_nodata(empty))


def _metres(raster: DatasetReader, grid: Grid) -> float:
    """Size of the raster's pixels, seen in the grid's projection."""
    left, _, right, _ = transform_bounds(grid_crs(grid), raster.crs, *grid.bounds)
    return grid.resolution * grid.size * raster.transform.a / (right - left)


@dataclass(frozen=True)
class _Between:
    """Along one axis, the two source pixels around each target pixel, and how near it is to the second."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    share: NDArray[np.float32]


@lru_cache(maxsize=256)  # the bands of a scene use the same ones in succession
def _linear(start: float, step: float, size: int, length: int) -> tuple[range, _Between]:
    """Source indices to read along one axis, and the linear interpolation between their centres."""
    position = np.clip(start + (np.arange(size) + 0.5) * step - 0.5, 0, length - 1)
    low = np.minimum(np.floor(position).astype(np.int64), length - 1)
    high = np.minimum(low + 1, length - 1)
    indices = range(int(low[0]), int(high[-1]) + 1)
    return indices, _Between(low - indices.start, high - indices.start, (position - low).astype(np.float32))


def _between(layers: NDArray[np.float32], at: _Between, axis: int) -> NDArray[np.float32]:
    """Interpolate (bands, h, w) along an axis. Sums and products alone: BLAS rounds differently on other machines."""
    far = at.share[:, None] if axis == 1 else at.share
    mixed = layers.take(at.low, axis) * (1 - far) + layers.take(at.high, axis) * far
    return mixed.astype(np.float32, copy=False)


def _nearest(start: float, step: float, size: int, length: int) -> tuple[range, NDArray[np.int64]]:
    """Source indices to read along one axis, and which of them each pixel uses."""
    position = np.clip(np.floor(start + (np.arange(size) + 0.5) * step), 0, length - 1).astype(np.int64)
    indices = range(int(position[0]), int(position[-1]) + 1)
    return indices, position - indices.start
