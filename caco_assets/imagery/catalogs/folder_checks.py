"""Compares the settings of a folder source with its files: contradictions raise, doubtful values give a note."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from rasterio.io import DatasetReader

from caco_assets.core.errors import UserError
from caco_assets.imagery.reading.file_facts import FileFacts, Said
from caco_assets.imagery.scenes.clear_sky import clear_test
from caco_assets.imagery.scenes.radiometry import Radiometry, missing
from caco_assets.settings import FolderSource
from caco_assets.settings.imagery_sources import USUAL_SCALE

DARK = 0.002
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


def radiometry_of(facts: FileFacts, source: FolderSource) -> tuple[Radiometry, ...]:
    """The meaning of each band's numbers: as the settings say, else as the file says, else as 16-bit products have it."""
    return facts.radiometry(_said(source), Radiometry(USUAL_SCALE, 0.0, 0.0))


def look(raster: DatasetReader, source: FolderSource, facts: FileFacts, meanings: Sequence[Radiometry]) -> Iterator[str]:
    """Signs that the settings do not fit the file, from its own words and an overview of it; a line each."""
    small = raster.read(out_shape=(raster.count, *(min(side, LOOK_AT) for side in raster.shape)))
    known = ~missing(small, meanings[0].nodata)
    values = [
        layer[there].astype(float) * meaning.scale + meaning.offset
        for layer, there, meaning in zip(small, known, meanings, strict=True)
    ]
    numbers = np.concatenate(values)
    middle = float(np.median(numbers)) if numbers.size else math.nan
    # all bands of an image are darker than 0.002 in no daylight, not even over clear deep water
    if numbers.size and not DARK < middle <= 1:
        scales, offsets = ({getattr(one, name) for one in meanings} for name in ("scale", "offset"))
        means = f"by scale={_listed(scales)} and offset={_listed(offsets)}"
        yield f"its middle reflectance is {middle:.3g} {means}; check them"
    yield from facts.contradictions(_said(source))
    yield from facts.doubts()


def _said(source: FolderSource) -> Said:
    if source.nodata == "file":
        return Said(source.scale, source.offset)
    return Said(source.scale, source.offset, source.nodata, nodata_of_file=False)


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))


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
