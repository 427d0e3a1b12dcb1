"""Opens rasters that others made with GDAL, by a short list of drivers that read no other file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

DRIVERS = ("GTiff", "JP2OpenJPEG")
"""GeoTIFF (also the cloud-optimised kind) and JPEG 2000. GDAL opens a file by its content, not by its name: with all its drivers, a
few lines of XML under the name of an image (a VRT, a WMS description) make it read any file of this machine or ask any server."""
_UNKNOWN = "not recognized as being in a supported file format"
_SIDE_FILES = (".ovr", ".msk", ".OVR", ".MSK")
"""GDAL opens them with all drivers when overviews or masks are read."""
_TIFF_STARTS = (b"II", b"MM")


class ForeignReferenceError(Exception):
    """A raster that makes GDAL read another file; the message is one line without the file's name."""


def open_listed(href: str, drivers: Sequence[str] = DRIVERS) -> DatasetReader:
    """Open a raster by path or address with one of some drivers.

    Raises:
        RasterioError: it is missing or damaged, or of another format.
        ForeignReferenceError: its overviews or its mask are read from elsewhere.
    """
    import rasterio
    from rasterio.errors import RasterioError

    check_side_files(href)
    for driver in drivers:
        try:
            raster = rasterio.open(href, driver=driver)
        except RasterioError as error:
            if _UNKNOWN not in str(error) or driver == drivers[-1]:
                raise
            continue
        check_overviews(raster)
        return raster
    raise ValueError("drivers: the list is empty")


def check_overviews(raster: DatasetReader) -> None:
    """Whether an open raster has its overviews in itself; closes it if not.

    Raises:
        ForeignReferenceError: a tag names the file that they are read from.
    """
    if "OVERVIEW_FILE" in raster.tags(ns="OVERVIEWS"):
        raster.close()
        raise ForeignReferenceError("its tag OVERVIEW_FILE makes GDAL read another file; remove the tag")


def check_side_files(path: str) -> None:
    """Whether the files of overviews and masks beside a raster of this machine are TIFFs themselves.

    Nothing lies beside an address.

    Raises:
        ForeignReferenceError: one is not.
    """
    for suffix in _SIDE_FILES:
        side = f"{path}{suffix}"
        # `Path.is_file` raises for names that no file can have
        if os.path.isfile(side):  # noqa: PTH113
            with open(side, "rb") as stream:  # noqa: PTH123
                if stream.read(2) not in _TIFF_STARTS:
                    raise ForeignReferenceError(
                        f"{Path(side).name} beside it is no TIFF: GDAL might read other files through it; remove it"
                    )
