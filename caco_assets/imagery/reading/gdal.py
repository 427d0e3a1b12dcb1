"""Opens rasters, and explains in one line why one cannot be read."""

from __future__ import annotations

import codecs
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from caco_assets.core.raster_drivers import DRIVERS, ForeignReferenceError, open_listed
from caco_assets.core.redact import without_secrets

GDAL_OPTIONS = {
    # no listing of a bucket for side files before each open; `open_raster` looks beside a file of this machine by name
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_NUM_THREADS": "1",
    "GDAL_CACHEMAX": 256,
    # over HTTP: neighboring ranges in one request, retry after a transient error, with a timeout
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_TIMEOUT": "60",
    "VSI_CACHE": "TRUE",
    # GDAL caches for the life of the process that a file could not be opened: do not use that cache
    "CPL_VSIL_CURL_NON_CACHED": "/vsis3/:/vsigs/:/vsiaz/",
}
_READ_AT_ONCE = 64 << 20
_DESCRIPTIONS = (b"<vrtdataset", b"<gdal_wms")
_ONLY = "only GeoTIFF and JPEG 2000 are opened, and what imagery.source.formats lists"


class UnreadableError(Exception):
    """A raster that cannot be used: `reason` is a code of `quarantine.parquet`, `detail` one line."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@contextmanager
def open_raster(href: str, drivers: Sequence[str] = DRIVERS) -> Iterator[DatasetReader]:
    """Open a GeoTIFF or a JPEG 2000 file by path or address, the same way for every use of it.

    What is in a side file of this machine (`.aux.xml`, `.tfw`) belongs to the file; beside an address nothing is looked for.

    Args:
        href: path or address.
        drivers: GDAL's names of the formats that the file may have.

    Raises:
        UnreadableError: `error_page` where a provider left a page of HTML or XML under the name of an image, else `unreadable`:
            missing, cut off, of another format, not georeferenced or not north up. Also for errors while reading inside the `with`.
    """
    beside = "EMPTY_DIR" if is_remote(href) else "TRUE"
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=beside):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            raster = open_listed(href, drivers)
            # side files are read when they are first needed: now
            check_placed(raster)
    except RasterioError as error:
        raise explain(href, error) from error
    except ForeignReferenceError as error:
        raise UnreadableError("unreadable", str(error)) from error
    with raster:
        try:
            yield raster
        except RasterioError as error:
            raise explain(href, error) from error


def is_remote(href: str) -> bool:
    """Whether an href is an address and not a path of this machine."""
    return "://" in href or href.startswith("/vsi")


def check_placed(raster: DatasetReader) -> None:
    """Whether an open raster is georeferenced and north up; closes it if not.

    Pixels are used in the order in which they are stored, so a mirrored or rotated image would be learned from and embedded as it
    is stored, under the right footprint.

    Raises:
        UnreadableError: it is not.
    """
    place, wrong = raster.transform, None
    if raster.crs is None or place.is_identity:
        wrong = "has no georeference"
    elif place.b or place.d:
        wrong = "is not north up but rotated; gdalwarp IN OUT turns it"
    elif place.a <= 0 or place.e >= 0:
        way = "south up" if place.e >= 0 else "mirrored"
        wrong = f"is not north up but {way}; gdalwarp IN OUT turns it"
    if wrong is not None:
        raster.close()
        raise UnreadableError("unreadable", wrong)


def page_kind(start: bytes) -> str | None:
    """HTML or XML if the first bytes of a supposed image are those of a page: a provider's error under its name."""
    text = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if not text.startswith(b"<"):
        return None
    return "HTML" if b"html" in text else "XML"


def explain(href: str, error: Exception) -> UnreadableError:
    """What is wrong with a file that GDAL could not read: its first bytes are more informative than GDAL's message."""
    path = Path(href)
    if not is_remote(href):
        try:
            with path.open("rb") as stream:
                found = _by_start(stream.read(512))
        except FileNotFoundError:
            found = UnreadableError("unreadable", "the file does not exist")
        except (OSError, ValueError) as problem:  # a folder, no permission, a name that no file can have
            why = problem.strerror if isinstance(problem, OSError) else problem
            found = UnreadableError("unreadable", f"cannot be opened as a file ({why})")
        if found is not None:
            return found
    if "not recognized as being in a supported file format" in str(error):
        what = _line(error, path).rstrip(".") if is_remote(href) else "neither a GeoTIFF nor JPEG 2000"
        return UnreadableError("unreadable", f"{what}: {_ONLY}")
    return UnreadableError("unreadable", _line(error.__cause__ or error, path))


def _by_start(start: bytes) -> UnreadableError | None:
    """What the first bytes of a supposed image say is wrong."""
    if not start.strip():
        return UnreadableError("unreadable", "the file is empty")
    if any(mark in start.lower() for mark in _DESCRIPTIONS):
        return UnreadableError("unreadable", f"a description of other files (VRT, WMS): {_ONLY}")
    if kind := page_kind(start):
        return UnreadableError("error_page", f"a page of {kind}, not a GeoTIFF: the download failed")
    return None


def check_readable(raster: DatasetReader) -> None:
    """Read every block once, a stripe at a time.

    Raises:
        RasterioError: a block is missing or damaged.
    """
    row_bytes = raster.width * raster.count * 8
    rows = max(_READ_AT_ONCE // row_bytes, 1)
    for top in range(0, raster.height, rows):
        raster.read(window=Window(0, top, raster.width, min(rows, raster.height - top)))  # pyright: ignore[reportCallIssue]


def _line(error: BaseException, path: Path) -> str:
    """The message in one line, without the file's folder (a record must not depend on the machine)."""
    return without_secrets(" ".join(str(error).split()).replace(f"{path.parent}/", ""))[:300]
