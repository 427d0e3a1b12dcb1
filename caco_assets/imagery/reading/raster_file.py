"""The interface of one open file of a scene, local or remote, that gives the pixels of a chip."""

from __future__ import annotations

from typing import Protocol

from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.reading.file_facts import FileFacts, facts_of
from caco_assets.imagery.reading.gdal import explain
from caco_assets.imagery.reading.resample import read_grid


class PixelFile(Protocol):
    """Gives the pixels of chips."""

    def read(self, indexes: list[int], grid: Grid, *, nearest: bool, nodata: float | None) -> NDArray:
        """Bands on the grid of a chip: see `read_grid`.

        Raises:
            UnreadableError: the chip reaches beyond the image, or the image cannot be read there.
        """
        ...

    def facts(self) -> FileFacts:
        """What the file says of itself.

        Raises:
            UnreadableError: it contradicts itself.
        """
        ...


class GdalFile:
    """A file that GDAL reads by itself: on this machine, in an object store, or of a format without its own blocks."""

    def __init__(self, raster: DatasetReader, address: str) -> None:
        self._raster, self._address = raster, address

    def read(self, indexes: list[int], grid: Grid, *, nearest: bool, nodata: float | None) -> NDArray:
        """See `PixelFile.read`."""
        try:
            return read_grid(self._raster, indexes, grid, nearest=nearest, nodata=nodata)
        except RasterioError as error:
            raise explain(self._address, error) from error

    def facts(self) -> FileFacts:
        """See `PixelFile.facts`."""
        return facts_of(self._raster)
