"""Reads chips out of scenes: each file of a scene is opened once and serves all the chips that want it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from caco_assets.imagery.clear import SCL_EMPTY, TEST_BANDS, clear_in_reflectance, clear_in_scl
from caco_assets.imagery.geotiff import UnreadableError, explain, open_raster
from caco_assets.imagery.grid import Grid
from caco_assets.imagery.hrefs import unpack
from caco_assets.imagery.radiometry import UNITS, Radiometry, harmonise, has_data
from caco_assets.imagery.resample import read_grid
from caco_assets.imagery.scene import BAND_MARK

MAX_EMPTY = 0.01
"""Largest share of a chip without data: a few defective pixels pass, the edge of a swath does not."""


@dataclass(frozen=True)
class SceneFiles:
    """Where the pixels of a scene lie and what they mean: the part of a row of `scenes.parquet` that reading needs."""

    item_id: str
    hrefs: dict[str, str]
    """Band → file relative to the catalog's folder, or absolute."""
    radiometry: dict[str, Radiometry]
    """Band → meaning of its numbers."""

    @classmethod
    def from_row(cls, row: dict) -> SceneFiles:
        """From a row of `scenes.parquet` as a dict."""
        hrefs = unpack(row["hrefs"])
        other = json.loads(row["radiometry"] or "{}")
        usual = Radiometry(row["scale"], row["offset"], row["nodata"])
        own = {band: Radiometry(scale, offset, row["nodata"]) for band, (scale, offset) in other.items()}
        return cls(row["item_id"], hrefs, {band: own.get(band, usual) for band in hrefs})


@dataclass(frozen=True)
class Want:
    """What every chip of a run has in common."""

    bands: tuple[str, ...]
    min_clear: float
    folder: Path
    """Relative hrefs start here."""
    sign: Callable[[str], str] = str
    """Makes an address readable (a provider's token); `str` leaves it as it is."""


@dataclass(frozen=True)
class Outcome:
    """A chip, or why there is none."""

    pixels: NDArray[np.uint16] | None = None
    """(bands, size, size), reflectance × 10 000, 0 = no data."""
    clear_fraction: float | None = None
    reason: str | None = None
    detail: str = ""


def read_chips(scene: SceneFiles, grids: Sequence[Grid], want: Want) -> list[Outcome]:
    """Read the chips of one scene, in the order of `grids`. Never raises for a bad file: the outcome carries the reason.

    Raises:
        MemoryError, KeyboardInterrupt: passed on.
    """
    with ExitStack() as stack:
        reader = _SceneReader(scene, want, stack)
        return [_outcome(reader, grid) for grid in grids]


def _outcome(reader: _SceneReader, grid: Grid) -> Outcome:
    try:
        return reader.chip(grid)
    except UnreadableError as error:
        return Outcome(reason=error.reason, detail=error.detail)


class _SceneReader:
    """The open files of one scene."""

    def __init__(self, scene: SceneFiles, want: Want, stack: ExitStack) -> None:
        self._scene, self._want, self._stack = scene, want, stack
        self._open: dict[str, DatasetReader | UnreadableError] = {}

    def chip(self, grid: Grid) -> Outcome:
        """Clear test first, where a scene classification makes it cheap; then the bands."""
        want = self._want
        clear: NDArray[np.bool_] | None = None
        if "SCL" in self._scene.hrefs:
            scl = self._read(["SCL"], grid)["SCL"]
            clear = clear_in_scl(scl)
            refusal = _refuse(scl != SCL_EMPTY, clear, want.min_clear)
            if refusal.reason:
                return refusal
            bands = list(want.bands)
        else:
            bands = [*want.bands, *(band for band in TEST_BANDS if band in self._scene.hrefs and band not in want.bands)]
        numbers = self._read(bands, grid)
        meanings = [self._scene.radiometry[band] for band in bands]
        stacked = np.stack([numbers[band].astype(np.float32) for band in bands])
        valid = has_data(stacked, meanings[0].nodata)
        scale, offset = (np.array([getattr(meaning, name) for meaning in meanings]) for name in ("scale", "offset"))
        pixels = harmonise(stacked, scale, offset, valid)
        if clear is None:
            clear = clear_in_reflectance({band: layer / np.float32(UNITS) for band, layer in zip(bands, pixels, strict=True)})
        refusal = _refuse(valid, clear & valid, want.min_clear)
        return refusal if refusal.reason else Outcome(pixels[: len(want.bands)], refusal.clear_fraction)

    def _read(self, bands: list[str], grid: Grid) -> dict[str, NDArray]:
        """Band → (size, size); bands of one file are read together."""
        files: dict[str, list[tuple[str, int]]] = {}
        for band in bands:
            href, _, number = self._scene.hrefs[band].partition(BAND_MARK)
            files.setdefault(href, []).append((band, int(number or 1)))
        layers: dict[str, NDArray] = {}
        for href, members in files.items():
            first = members[0][0]
            nodata = 0.0 if first == "SCL" else self._scene.radiometry[first].nodata
            try:
                block = read_grid(
                    self._raster(href), [number for _, number in members], grid, nearest=first == "SCL", nodata=nodata
                )
            except RasterioError as error:
                raise explain(self._address(href), error) from error
            layers |= {band: layer for (band, _), layer in zip(members, block, strict=True)}
        return layers

    def _raster(self, href: str) -> DatasetReader:
        if href not in self._open:
            try:
                self._open[href] = self._stack.enter_context(open_raster(self._address(href)))
            except UnreadableError as error:
                self._open[href] = UnreadableError(error.reason, f"{Path(href).name}: {error.detail}")
        raster = self._open[href]
        if isinstance(raster, UnreadableError):
            raise raster
        return raster

    def _address(self, href: str) -> str:
        remote = "://" in href or href.startswith("/vsi")
        return self._want.sign(href) if remote else str(self._want.folder / href)


def _refuse(valid: NDArray[np.bool_], clear: NDArray[np.bool_], min_clear: float) -> Outcome:
    """The refusal that the masks ask for; without `reason` when the chip is good."""
    empty, share = 1 - float(valid.mean()), float(clear.mean())
    if empty > MAX_EMPTY:
        return Outcome(
            clear_fraction=share, reason="nodata", detail=f"{empty:.0%} of the chip has no data (at most {MAX_EMPTY:.0%})"
        )
    if share < min_clear:
        return Outcome(clear_fraction=share, reason="cloudy", detail=f"{share:.0%} of the chip is clear (at least {min_clear:.0%})")
    return Outcome(clear_fraction=share)
