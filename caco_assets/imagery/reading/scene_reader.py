"""Reads chips out of scenes: each file of a scene is opened once for all the chips that need it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caco_assets.core.raster_drivers import DRIVERS
from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.reading.file_facts import Said
from caco_assets.imagery.reading.gdal import UnreadableError, open_raster
from caco_assets.imagery.reading.http.cog_reader import RemoteFiles, is_http
from caco_assets.imagery.reading.raster_file import GdalFile, PixelFile
from caco_assets.imagery.scenes.clear_sky import SCL_EMPTY, TEST_BANDS, clear_in_reflectance, clear_in_scl
from caco_assets.imagery.scenes.hrefs import href_problem, unpack
from caco_assets.imagery.scenes.radiometry import UNITS, Radiometry, harmonize, has_data
from caco_assets.imagery.scenes.stac_item import BAND_MARK

logger = logging.getLogger(__name__)

_Files = Mapping[str, PixelFile | UnreadableError]
MAX_EMPTY = 0.01
"""Largest share of a chip without data: a few defective pixels pass, the edge of a swath does not."""


@dataclass(frozen=True)
class SceneFiles:
    """The location and the meaning of a scene's pixels: the part of a row of `scenes.parquet` that reading needs."""

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
    """What all chips of a run have in common."""

    bands: tuple[str, ...]
    min_clear: float
    folder: Path | None
    """Relative hrefs start here; None: the catalog is remote, and files of this machine are not read for it."""
    sign: Callable[[str], str] = str
    """Makes an address readable (a provider's token); `str` leaves it unchanged."""
    drivers: tuple[str, ...] = DRIVERS
    """GDAL's names of the formats that files may have."""


@dataclass(frozen=True)
class Outcome:
    """A chip, or the reason why there is none."""

    pixels: NDArray[np.uint16] | None = None
    """(bands, size, size), reflectance × 10 000, 0 = no data."""
    clear_fraction: float | None = None
    reason: str | None = None
    detail: str = ""


def read_chips(
    scene: SceneFiles, grids: Sequence[Grid], want: Want, remote: RemoteFiles | None = None
) -> Iterator[tuple[int, Outcome]]:
    """Read the chips of one scene; a bad file raises nothing, the outcome carries the reason.

    A scene classification, where there is one, is read first for all chips; the bands then only for those that are clear.

    Args:
        scene: its files.
        grids: of the chips.
        want: what the chips have in common.
        remote: reads files over HTTP; None: GDAL does.

    Yields:
        Number of each grid, and its chip or why there is none: refusals first, one chip at a time in memory.

    Raises:
        UserError: the provider of the files does not serve them.
    """
    reader = _SceneReader(scene, want, remote)
    masks: dict[int, NDArray[np.bool_] | None] = dict.fromkeys(range(len(grids)))
    if "SCL" in scene.hrefs:
        for row, (outcome, clear) in enumerate(reader.classify(grids)):
            masks[row] = clear
            if outcome.reason is not None:
                del masks[row]
                yield row, outcome
    if masks:
        outcomes = reader.chips([grids[row] for row in masks], list(masks.values()))
        yield from zip(masks, outcomes, strict=True)


class _SceneReader:
    """Reads the files of one scene."""

    def __init__(self, scene: SceneFiles, want: Want, remote: RemoteFiles | None) -> None:
        self._scene, self._want, self._remote = scene, want, remote
        self._cpu = nullcontext() if remote is None else remote.cpu

    def classify(self, grids: Sequence[Grid]) -> list[tuple[Outcome, NDArray[np.bool_] | None]]:
        """The result of the scene classification: refusals, and the masks of clear pixels."""
        with self._open(["SCL"], grids) as files:
            return [self._classified(files, grid) for grid in grids]

    def chips(self, grids: Sequence[Grid], masks: Sequence[NDArray[np.bool_] | None]) -> Iterator[Outcome]:
        """The bands; a mask that is None follows from their reflectance."""
        want, there = self._want, self._scene.hrefs
        helpers = TEST_BANDS if "SCL" not in there else ()
        bands = [*want.bands, *(band for band in helpers if band in there and band not in want.bands)]
        with self._open(bands, grids) as files:
            for grid, mask in zip(grids, masks, strict=True):
                yield self._chip(files, bands, grid, mask)

    def _classified(self, files: _Files, grid: Grid) -> tuple[Outcome, NDArray[np.bool_] | None]:
        try:
            scl = self._read(files, ["SCL"], grid)["SCL"]
        except UnreadableError as error:
            return Outcome(reason=error.reason, detail=error.detail), None
        with self._cpu:
            clear = clear_in_scl(scl)
            return _refuse(scl != SCL_EMPTY, clear, self._want.min_clear), clear

    def _chip(self, files: _Files, bands: list[str], grid: Grid, clear: NDArray[np.bool_] | None) -> Outcome:
        try:
            numbers = self._read(files, bands, grid)
        except UnreadableError as error:
            return Outcome(reason=error.reason, detail=error.detail)
        with self._cpu:
            meanings = [self._scene.radiometry[band] for band in bands]
            stacked = np.stack([numbers[band].astype(np.float32) for band in bands])
            valid = has_data(stacked, meanings[0].nodata)
            scale, offset = (np.array([getattr(meaning, name) for meaning in meanings]) for name in ("scale", "offset"))
            pixels = harmonize(stacked, scale, offset, valid)
            if clear is None:
                reflectance = {band: layer / np.float32(UNITS) for band, layer in zip(bands, pixels, strict=True)}
                clear = clear_in_reflectance(reflectance)
            refusal = _refuse(valid, clear & valid, self._want.min_clear)
        return refusal if refusal.reason else Outcome(pixels[: len(self._want.bands)], refusal.clear_fraction)

    def _read(self, files: _Files, bands: list[str], grid: Grid) -> dict[str, NDArray]:
        """Band → (size, size); bands of one file are read together."""
        layers: dict[str, NDArray] = {}
        for href, members in self._members(bands).items():
            first, file = members[0][0], files[href]
            if isinstance(file, UnreadableError):
                raise file
            nodata = 0.0 if first == "SCL" else self._scene.radiometry[first].nodata
            block = file.read([number for _, number in members], grid, nearest=first == "SCL", nodata=nodata)
            layers |= {band: layer for (band, _), layer in zip(members, block, strict=True)}
        return layers

    def _members(self, bands: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
        """File → the bands in it, with their numbers there."""
        files: dict[str, list[tuple[str, int]]] = {}
        for band in bands:
            href, _, number = self._scene.hrefs[band].partition(BAND_MARK)
            files.setdefault(href, []).append((band, int(number or 1)))
        return files

    @contextmanager
    def _open(self, bands: list[str], grids: Sequence[Grid]) -> Iterator[_Files]:
        """Address → file, or why it cannot be opened."""
        numbers = {href: [number for _, number in members] for href, members in self._members(bands).items()}
        far = {} if self._remote is None else {href: numbers[href] for href in numbers if is_http(href)}
        files: dict[str, PixelFile | UnreadableError] = {}
        with ExitStack() as stack:
            if self._remote is not None and far:
                files |= stack.enter_context(self._remote.open(far, grids))
            for href in numbers:
                if href in files:
                    continue
                try:
                    address = self._address(href)
                    files[href] = GdalFile(stack.enter_context(open_raster(address, self._want.drivers)), address)
                except UnreadableError as error:
                    files[href] = UnreadableError(error.reason, f"{Path(href).name}: {error.detail}")
            self._compare(bands, files)
            yield files

    def _compare(self, bands: list[str], files: _Files) -> None:
        """Log where a file says otherwise than its item what its numbers mean."""
        for href, members in self._members(bands).items():
            file = files[href]
            if isinstance(file, UnreadableError) or members[0][0] == "SCL":
                continue
            facts = file.facts()
            for band, number in members:
                meaning = self._scene.radiometry[band]
                said = Said(meaning.scale, meaning.offset, meaning.nodata, nodata_of_file=meaning.nodata is None)
                for note in facts.of_band(number).contradictions(said):
                    _log_once(f"{band}: a file {note}, as its item has it")

    def _address(self, href: str) -> str:
        """What GDAL opens for an href.

        Raises:
            UnreadableError: the href is not of a kind that its catalog may use.
        """
        folder = self._want.folder
        if (wrong := href_problem(href, local=folder is not None)) is not None:
            raise UnreadableError("unreadable", wrong)
        return self._want.sign(href) if "://" in href or folder is None else str(folder / href)


@cache
def _log_once(note: str) -> None:
    """Of the many files that say it, one is enough."""
    logger.warning(note)


def _refuse(valid: NDArray[np.bool_], clear: NDArray[np.bool_], min_clear: float) -> Outcome:
    """The refusal that the masks require; without `reason` if the chip is good."""
    empty, share = 1 - float(valid.mean()), float(clear.mean())
    if empty > MAX_EMPTY:
        return Outcome(
            clear_fraction=share, reason="nodata", detail=f"{empty:.0%} of the chip has no data (at most {MAX_EMPTY:.0%})"
        )
    if share < min_clear:
        return Outcome(clear_fraction=share, reason="cloudy", detail=f"{share:.0%} of the chip is clear (at least {min_clear:.0%})")
    return Outcome(clear_fraction=share)
