"""Compares the settings of a folder source with its files: contradictions raise, doubtful values give a note."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rasterio.io import DatasetReader

from caco_assets.core.errors import UserError
from caco_assets.imagery.scenes.clear_sky import clear_test
from caco_assets.settings import FolderSource

LOOK_AT = 256
"""Pixels on a side of the overview in which the values are checked."""


def check_bands(source: FolderSource) -> None:
    """Check that every band is named exactly once.

    Raises:
        UserError: no band, or one named twice.
    """
    twice = sorted({band for band in source.bands if source.bands.count(band) > 1})
    if twice or not source.bands:
        what = f"{', '.join(twice)} appears twice" if twice else "no band"
        raise UserError(f"imagery.source.bands={','.join(source.bands)}: {what}; name every band of the files once, in their order")


def look(path: Path, raster: DatasetReader, source: FolderSource) -> Iterator[str]:
    """Signs that the settings do not fit the file, from an overview of it; a line each."""
    small = raster.read(out_shape=(raster.count, *(min(side, LOOK_AT) for side in raster.shape))).astype(float)
    numbers = small if source.nodata is None else small[small != source.nodata]
    middle = float(np.median(numbers)) * source.scale + source.offset if numbers.size else 0.0
    if not 0 <= middle <= 1:
        means = f"by scale={source.scale:g} and offset={source.offset:g}"
        yield f"{path.name}: its middle reflectance is {middle:.3g} {means}; check them"
    if raster.nodata is not None and source.nodata is not None and raster.nodata != source.nodata:
        yield f"{path.name}: says that {raster.nodata:g} means no data, imagery.source.nodata says {source.nodata:g}"


def closing_notes(source: FolderSource, projections: Sequence[str]) -> Iterator[str]:
    """Notes on the folder as a whole that a user should check; a line each.

    Args:
        source: the folder.
        projections: of its files.
    """
    codes = sorted(set(projections))
    if len(codes) > 1:
        yield f"the files are in {len(codes)} projections ({', '.join(codes)}); chips are read from each as it is"
    if clear_test(source.bands) == "nodata":
        yield "no band SCL, and not both B02 and B04: cloud is not looked for, only pixels without data count against a chip"
