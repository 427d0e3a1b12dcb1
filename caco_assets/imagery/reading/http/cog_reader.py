"""Reads files over HTTP for many chips at once: first all indexes, then all wanted blocks, then GDAL decodes them in memory.

A chip costs a request for each run of blocks that it touches, and its share of one request for the file's index; blocks that
several chips touch are fetched once. Files that are not indexed GeoTIFFs (JPEG 2000) are left to GDAL's own client.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.warp import transform_bounds

from caco_assets.core.raster_drivers import DRIVERS, ForeignReferenceError, check_overviews
from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.reading.file_facts import FileFacts, facts_of
from caco_assets.imagery.reading.gdal import UnreadableError, check_placed, open_raster
from caco_assets.imagery.reading.http.range_client import Fetcher, Sign
from caco_assets.imagery.reading.http.range_response import ChangedFileError, RangeResponse, Span
from caco_assets.imagery.reading.http.tiff_index import NeedMoreError, TiffIndex, read_index
from caco_assets.imagery.reading.raster_file import GdalFile, PixelFile
from caco_assets.imagery.reading.resample import grid_crs, read_grid

logger = logging.getLogger(__name__)

HEAD = 32 << 10
"""First bytes requested: the index of a Sentinel-2 band of 10 980² in blocks of 512² takes 10 to 16 KiB, of 256² about 25."""
GAP = 16 << 10
"""Blocks with less than this between them are fetched in one request: at 50 ms a request, a megabyte per second pays for it."""
LONGEST = 8 << 20
"""Maximum bytes in one request: more would keep other connections idle."""
MARGIN, WIDE_MARGIN = 4, 64
"""Pixels around a chip that interpolation may use; the wide one is for a second attempt."""
MEMORY = 512 << 20
_INDEXES = 1024
_INDEX_LIMIT = 8 << 20


def is_http(href: str) -> bool:
    """Whether a file is read by this module."""
    return href.startswith(("http://", "https://"))


class Budget:
    """Bytes that may be in memory at once; a request for more than the total waits until it is alone."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._changed = limit, 0, threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait for `size` bytes and hold them while the block runs. Must not be nested in one thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + size <= self._limit)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


@dataclass(frozen=True)
class _Blocks:
    """The blocks to fetch from a file, and those that failed."""

    index: TiffIndex
    numbers: NDArray[np.int64]
    """Sorted by their place in the file."""
    spans: list[Span]
    """Runs of them."""

    def size(self) -> int:
        return sum(stop - start for start, stop in self.spans)


class RemoteFiles:
    """Files over HTTP, shared by the threads of one run of work."""

    def __init__(
        self,
        fetcher: Fetcher,
        sign: Sign,
        cpu: AbstractContextManager | None = None,
        memory: int = MEMORY,
        drivers: Sequence[str] = DRIVERS,
    ) -> None:
        """`cpu`: a semaphore held while pixels are decoded (at most one thread per core); `drivers`: see `open_raster`."""
        self._fetcher, self._sign, self._drivers = fetcher, sign, drivers
        self.cpu = cpu or threading.BoundedSemaphore(2)
        self._budget = Budget(memory)
        self._indexes: OrderedDict[str, TiffIndex | None] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def open(self, bands: Mapping[str, Sequence[int]], grids: Sequence[Grid]) -> Iterator[dict[str, PixelFile | UnreadableError]]:
        """Fetch what the chips of `grids` need of some files (address → band numbers), and open them.

        Raises:
            UserError: the provider does not serve its files.
        """
        indexes = self._read_indexes(list(bands))
        plans: dict[str, _Blocks] = {}
        for href, index in indexes.items():
            try:
                if isinstance(index, TiffIndex):
                    plans[href] = _plan(index, bands[href], grids, MARGIN)
            # a projection that nobody knows, pixels of no size
            except (RasterioError, ValueError, OverflowError):
                indexes[href] = UnreadableError("unreadable", "has a georeference that cannot be used")
        with self._budget.hold(sum(plan.size() for plan in plans.values())), ExitStack() as stack:
            parts = self._fetch(plans)
            opened: dict[str, PixelFile | UnreadableError] = {}
            for href, index in indexes.items():
                try:
                    if isinstance(index, UnreadableError):
                        raise index
                    if index is None:
                        opened[href] = GdalFile(stack.enter_context(open_raster(self._sign(href), self._drivers)), href)
                        continue
                    good, bad = parts[href]
                    with self.cpu:
                        raster = stack.enter_context(_in_memory(index, good))
                    opened[href] = _RemoteFile(self, href, index, raster, bad)
                except UnreadableError as error:
                    opened[href] = UnreadableError(error.reason, _named(href, error.detail))
            yield opened

    def read_again(self, href: str, bands: Sequence[int], grid: Grid, *, nearest: bool, nodata: float | None) -> NDArray:
        """Fetch again, including the index, with a wide margin: the first data could not be decoded.

        Raises:
            UnreadableError: it cannot be decoded either.
        """
        with self._lock:
            self._indexes.pop(href, None)
        index = self._read_indexes([href])[href]
        if not isinstance(index, TiffIndex):
            raise index or UnreadableError("unreadable", _named(href, "is no longer a GeoTIFF"))
        good, bad = self._fetch({href: _plan(index, bands, [grid], WIDE_MARGIN)})[href]
        if bad:
            raise next(iter(bad.values()))
        try:
            with self.cpu, _in_memory(index, good) as raster:
                return read_grid(raster, list(bands), grid, nearest=nearest, nodata=nodata)
        except RasterioError as error:
            raise UnreadableError("unreadable", _named(href, "a block cannot be decoded")) from error

    def _read_indexes(self, hrefs: list[str]) -> dict[str, TiffIndex | UnreadableError | None]:
        with self._lock:
            found: dict[str, TiffIndex | UnreadableError | None] = {}
            for href in hrefs:
                if href in self._indexes:
                    self._indexes.move_to_end(href)
                    found[href] = self._indexes[href]
        wanted = {href: HEAD for href in hrefs if href not in found}
        while wanted:
            pieces = self._fetcher.get([(href, (0, stop)) for href, stop in wanted.items()])
            asked, wanted = wanted, {}
            for (href, stop), piece in zip(asked.items(), pieces, strict=True):
                if isinstance(piece, UnreadableError):
                    found[href] = piece
                    continue
                try:
                    index = read_index(piece.data)
                    found[href] = index and replace(index, version=piece.version)
                except NeedMoreError as error:
                    if not stop < error.stop <= min(piece.size, _INDEX_LIMIT):
                        found[href] = UnreadableError("unreadable", "the file is cut off or damaged: its index is not whole")
                    else:
                        wanted[href] = error.stop
        with self._lock:
            self._indexes |= {href: index for href, index in found.items() if not isinstance(index, UnreadableError)}
            while len(self._indexes) > _INDEXES:
                self._indexes.popitem(last=False)
        return {href: found[href] for href in hrefs}

    def _fetch(self, plans: Mapping[str, _Blocks]) -> dict[str, tuple[dict[int, bytes], dict[int, UnreadableError]]]:
        """File → its blocks, and those that cannot be fetched."""
        wants = [(href, span) for href, plan in plans.items() for span in plan.spans]
        versions = [plan.index.version for plan in plans.values() for _ in plan.spans]
        pieces = iter(self._fetcher.get(wants, versions) if wants else [])
        result = {}
        for href, plan in plans.items():
            good: dict[int, bytes] = {}
            bad: dict[int, UnreadableError] = {}
            for start, stop in plan.spans:
                piece = next(pieces)
                for number in plan.numbers.tolist():
                    at, size = int(plan.index.offsets[number]), int(plan.index.counts[number])
                    if not start <= at < stop:
                        continue
                    if isinstance(piece, RangeResponse):
                        good[number] = piece.data[at - start : at - start + size]
                    else:
                        bad[number] = type(piece)(piece.reason, _named(href, piece.detail))
            result[href] = good, bad
        return result


class _RemoteFile:
    """Some blocks of a remote file, open in memory."""

    def __init__(
        self, files: RemoteFiles, href: str, index: TiffIndex, raster: DatasetReader, bad: Mapping[int, UnreadableError]
    ) -> None:
        self._files, self._href, self._index, self._raster, self._bad = files, href, index, raster, bad

    def read(self, indexes: list[int], grid: Grid, *, nearest: bool, nodata: float | None) -> NDArray:
        """See `PixelFile.read`."""
        if self._bad:
            touched = _plan(self._index, indexes, [grid], MARGIN).numbers.tolist()
            for number in touched:
                if isinstance(self._bad.get(number), ChangedFileError):
                    logger.info(f"{self._bad[number].detail}; it is read again")
                    return self._files.read_again(self._href, indexes, grid, nearest=nearest, nodata=nodata)
                if number in self._bad:
                    raise self._bad[number]
        try:
            with self._files.cpu:
                return read_grid(self._raster, indexes, grid, nearest=nearest, nodata=nodata)
        except RasterioError:
            return self._files.read_again(self._href, indexes, grid, nearest=nearest, nodata=nodata)

    def facts(self) -> FileFacts:
        """See `PixelFile.facts`."""
        return facts_of(self._raster)


@contextmanager
def _in_memory(index: TiffIndex, parts: Mapping[int, bytes]) -> Iterator[DatasetReader]:
    with MemoryFile(index.extract(parts)) as memory:
        try:
            raster = memory.open(driver="GTiff")
            check_overviews(raster)
        except RasterioError as error:
            raise UnreadableError("unreadable", "GDAL cannot open it") from error
        except ForeignReferenceError as error:
            raise UnreadableError("unreadable", str(error)) from error
        with raster:
            check_placed(raster)
            yield raster


def _plan(index: TiffIndex, bands: Sequence[int], grids: Sequence[Grid], margin: int) -> _Blocks:
    touched = [index.blocks(*_window(index, grid, margin), bands) for grid in grids]
    numbers = np.unique(np.concatenate(touched))
    numbers = numbers[index.counts[numbers] > 0]
    numbers = numbers[np.argsort(index.offsets[numbers], kind="stable")]
    spans: list[Span] = []
    for number in numbers.tolist():
        start = int(index.offsets[number])
        stop = start + int(index.counts[number])
        if spans and start - spans[-1][1] <= GAP and stop - spans[-1][0] <= LONGEST:
            spans[-1] = spans[-1][0], max(stop, spans[-1][1])
        else:
            spans.append((start, stop))
    return _Blocks(index, numbers, spans)


def _window(index: TiffIndex, grid: Grid, margin: int) -> tuple[int, int, int, int]:
    """Pixels (left, top, right, bottom) of the file that a chip may need."""
    place, same = index.transform, index.epsg == grid.epsg
    bounds = grid.bounds if same else transform_bounds(grid_crs(grid), f"EPSG:{index.epsg}", *grid.bounds)
    left, right = (bounds[0] - place.c) / place.a, (bounds[2] - place.c) / place.a
    top, bottom = (bounds[3] - place.f) / place.e, (bounds[1] - place.f) / place.e
    # where several of its pixels make one of the chip's, interpolation reaches further
    margin = round(margin * max(1.0, (right - left) / grid.size))
    return math.floor(left) - margin, math.floor(top) - margin, math.ceil(right) + margin, math.ceil(bottom) + margin


def _named(href: str, detail: str) -> str:
    """With the file's name in front: an address may hold a key."""
    name = PurePosixPath(urlsplit(href).path).name
    return detail if detail.startswith(f"{name}: ") else f"{name}: {detail}"
