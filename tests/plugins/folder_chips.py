"""Small GeoTIFFs with any oddity, and the chip that a folder of them gives."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from caco_assets.imagery.catalogs.folder import index_folder
from caco_assets.imagery.catalogs.static import StaticCatalog
from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.reading.scene_reader import Outcome, SceneFiles, Want, read_chips
from caco_assets.settings import FolderSource

EPSG, LEFT, TOP, SIDE = 32631, 498_000.0, 4_651_020.0, 64
NORTH_UP = Affine(10, 0, LEFT, 0, -10, TOP)
GRID = Grid(EPSG, LEFT + 160, TOP - 160, 32, 10.0)
"""The middle of a file, on its own pixels."""
HALF_A_PIXEL_OFF = Grid(EPSG, LEFT + 165, TOP - 165, 32, 10.0)
MIDDLE = np.s_[..., 16:48, 16:48]
EVER = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def write_raster(path: Path, layers: np.ndarray, *, names: tuple[str | None, ...] = (), **profile: Any) -> Path:
    """A GeoTIFF of (bands, H, W); `scales`, `offsets` and `mask` (True: valid) go into its tags, other options to rasterio."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = {name: profile.pop(name) for name in ("scales", "offsets") if name in profile}
    mask = profile.pop("mask", None)
    count, height, width = layers.shape
    basic = {"driver": "GTiff", "crs": f"EPSG:{EPSG}", "transform": NORTH_UP, "dtype": layers.dtype}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", count=count, height=height, width=width, **{**basic, **profile}) as raster,
    ):
        raster.write(layers)
        for number, name in enumerate(names, start=1):
            raster.set_band_description(number, name)
        for name, value in tags.items():
            setattr(raster, name, value)
        if mask is not None:
            raster.write_mask(mask)
    return path


def numbers(count: int = 2, dtype: str = "uint16", low: int = 500, high: int = 3000) -> np.ndarray:
    """(count, 64, 64) of reproducible noise."""
    return np.random.default_rng(7).integers(low, high, (count, SIDE, SIDE)).astype(dtype)


def folder_chip(folder: Path, bands: tuple[str, ...] = ("B02", "B03"), grid: Grid = GRID, **source: Any) -> Outcome:
    """The chip of a folder's only date, by way of its catalog."""
    target = folder.parent / "catalog"
    index_folder(FolderSource(**{"path": folder, "bands": bands, **source}), target)
    (scene,) = StaticCatalog.open(target, bands).search((-180, -90, 180, 90), EVER)
    meanings = {band: scene.exceptions.get(band, scene.radiometry) for band in scene.hrefs}
    files = SceneFiles(scene.item_id, dict(scene.hrefs), meanings)
    [(_, outcome)] = read_chips(files, [grid], Want(bands, 0.5, target))
    return outcome
