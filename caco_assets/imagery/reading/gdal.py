"""Opens rasters, and explains in one line why one cannot be read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from caco_assets.core.redact import without_secrets

GDAL_OPTIONS = {
    # no listing of the folder (or of the bucket) for side files before each open
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


class UnreadableError(Exception):
    """A raster that cannot be used: `reason` is a code of `quarantine.parquet`, `detail` one line."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@contextmanager
def open_raster(href: str) -> Iterator[DatasetReader]:
    """Open a GeoTIFF by path or address.

    Raises:
        UnreadableError: `error_page` where a provider left a page of HTML or XML under the name of an image, else `unreadable`:
            missing, cut off, no georeference. Also for errors while reading inside the `with`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            raster = rasterio.open(href)
    except RasterioError as error:
        raise explain(href, error) from error
    with raster:
        check_placed(raster)
        try:
            yield raster
        except RasterioError as error:
            raise explain(href, error) from error


def check_placed(raster: DatasetReader) -> None:
    """Whether an open raster is georeferenced.

    Raises:
        UnreadableError: it is not, or it is rotated.
    """
    if raster.crs is None or raster.transform.is_identity:
        raise UnreadableError("unreadable", "has no georeference")
    if raster.transform.b or raster.transform.d or raster.transform.e >= 0:
        raise UnreadableError("unreadable", "is not north up")


def page_kind(start: bytes) -> str | None:
    """HTML or XML if the first bytes of a supposed image are those of a page: a provider's error under its name."""
    text = start.lstrip().lower()
    if not text.startswith(b"<"):
        return None
    return "HTML" if b"html" in text else "XML"


def explain(href: str, error: Exception) -> UnreadableError:
    """What is wrong with a file that GDAL could not read: its first bytes are more informative than GDAL's message."""
    path = Path(href)
    if "://" in href or href.startswith("/vsi"):
        return UnreadableError("unreadable", _line(error, path))
    if not path.exists():
        return UnreadableError("unreadable", "the file does not exist")
    with path.open("rb") as stream:
        start = stream.read(512)
    if not start.strip():
        return UnreadableError("unreadable", "the file is empty")
    if kind := page_kind(start):
        return UnreadableError("error_page", f"a page of {kind}, not a GeoTIFF: the download failed")
    return UnreadableError("unreadable", _line(error.__cause__ or error, path))


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
