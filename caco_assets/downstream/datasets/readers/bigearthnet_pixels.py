"""BigEarthNet's pixels: twelve one-band tifs of a patch, 120, 60 or 20 pixels on a side, on one grid of 120 × 120."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.band_check import PLANTS, check_order, spread
from caco_assets.downstream.datasets.classification import Part
from caco_assets.downstream.datasets.names import find_file
from caco_assets.downstream.datasets.readers.bigearthnet_labels import CLASSES
from caco_assets.downstream.datasets.tiff import read_tiff
from caco_assets.pretraining.encoder.preprocessing import PixelFormat

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
SIDE = 120
FORMAT = PixelFormat(BANDS, 1e-4)
"""Level-2A digital numbers of 2017 and 2018, before products had an offset."""
_WET = ("Beaches, dunes, sands", "Inland wetlands", "Coastal wetlands", "Inland waters", "Marine waters")
_LOOKED_AT = 15
SIDES: dict[str, int] = dict(zip(BANDS, (20, 120, 120, 120, 60, 60, 60, 120, 60, 20, 60, 60), strict=True))
"""Band → side of its file in pixels."""


def read_patch(folder: Path, bands: tuple[str, ...]) -> np.ndarray:
    """uint16 (bands, 120, 120): coarser bands are interpolated bilinearly between pixel centres, as in torchgeo's reader.

    Args:
        folder: of the patch, with `<patch>_<band>.tif`.
        bands: the wanted ones.

    Raises:
        UserError: a file is missing, damaged, or not of its band's size.
    """
    return np.stack([_enlarged(_read(folder, band)) for band in bands])


def check_bands(root: Path, read: Callable[[str], np.ndarray], parts: Mapping[str, Part]) -> None:
    """Check the band order on a few patches without water; see `band_check`.

    Args:
        root: of the data, for the message.
        read: patch → (12, 120, 120).
        parts: of the split.

    Raises:
        UserError: bands are swapped, or a file is damaged.
    """
    wet = [CLASSES.index(name) for name in _WET]
    rows = [row for part in parts.values() for row in zip(part.names, part.labels, strict=True)]
    land = sorted(name for name, labels in rows if not labels[wet].any())
    pairs = (*PLANTS, ("B08", "B02"), ("B08", "B03"), ("B03", "B02"), ("B09", "B01"), ("B8A", "B12"))
    check_order(root, [read(name) for name in spread(land, _LOOKED_AT)], BANDS, pairs, "dry land")


def _read(folder: Path, band: str) -> np.ndarray:
    """uint16 (side, side) of a band, by names that differ from the authors' in upper and lower case alone."""
    side, wanted = SIDES[band], folder / f"{folder.name}_{band}.tif"
    file = find_file(folder, wanted.name)
    if file is None:
        raise UserError(f"{wanted}: there is no such file; extract the archive again")

    def check(shape: tuple[int, ...], dtype: np.dtype) -> None:
        if shape != (side, side) or dtype != np.uint16:
            found = "×".join(str(length) for length in shape)
            raise UserError(f"{file}: {found} {dtype}; this band of BigEarthNet is {side}×{side} uint16 (are bands swapped?)")

    return read_tiff(file, str(file), check=check, advice="extract the archive again").pixels


def _enlarged(image: np.ndarray) -> np.ndarray:
    """uint16 (120, 120) of (n, n), n a divisor of 120."""
    side = image.shape[0]
    if side == SIDE:
        return image
    # positions of the fine pixel centres between the coarse ones; beyond the outermost coarse pixel, its value is used
    places = np.clip((np.arange(SIDE) + 0.5) * side / SIDE - 0.5, 0, side - 1)
    first = np.minimum(places.astype(int), side - 2)
    share = places - first
    rows = image[first] * (1 - share)[:, None] + image[first + 1] * share[:, None]  # (120, n)
    both = rows[:, first] * (1 - share) + rows[:, first + 1] * share
    return np.floor(both + 0.5).astype(np.uint16)
