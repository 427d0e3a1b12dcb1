"""Reads TIFF files whose size is checked before memory is taken: uncompressed, deflate, LZW or PackBits, in any layout.

tifffile decodes LZW and PackBits only with the package imagecodecs, and unpacks deflate to any size. Pillow brings libtiff, which
decodes both: each strip or tile is given to it as a grey picture of its own.
"""

from __future__ import annotations

import importlib.util
import logging
import struct
import zlib
from collections import ChainMap
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np

from caco_assets.core.errors import UserError, one_line

MAX_BYTES = 1 << 31
"""Largest decoded image: an aerial mosaic of 21 243 × 15 354 pixels in three bands has 0.98 GB."""
_GDAL_METADATA = 42112
_NONE, _LZW, _DEFLATE, _ADOBE_DEFLATE, _PACKBITS = 1, 5, 32946, 8, 32773
# Some writers fill the last strip with rows that the image does not have.
_SPARE = 64 << 20
_WHITE_IS_ZERO, _PALETTE = 0, 3


@dataclass(frozen=True)
class Tiff:
    """A decoded TIFF."""

    pixels: np.ndarray
    """As stored: (H, W), (bands, H, W) or (H, W, bands)."""
    axes: str
    """tifffile's letter for each axis; rows and columns are Y and X."""
    white_is_zero: bool
    """Whether the smallest value is shown as white."""
    palette: np.ndarray | None
    """uint8 (3, values): colour of each value; None: the values are grey levels or colours themselves."""
    metadata: str
    """GDAL's XML; empty if there is none."""


def read_tiff(
    source: bytes | Path, where: str, *, check: Callable[[tuple[int, ...], np.dtype], None] | None = None, advice: str
) -> Tiff:
    """Decode the first image of a TIFF.

    Args:
        source: its bytes, or the file.
        where: its origin, for the message.
        check: given shape and type from the header, before memory is taken; raises for an image that does not belong here.
        advice: what the user can do about a damaged file.

    Raises:
        UserError: damaged, larger than `MAX_BYTES`, or stored in a way that is not read.
    """
    import tifffile

    _use_codecs()
    with _errors(where, advice), tifffile.TiffFile(BytesIO(source) if isinstance(source, bytes) else source) as tiff:
        series, page = tiff.series[0], tiff.series[0].keyframe
        if series.nbytes > MAX_BYTES:
            raise UserError(f"{where}: its header asks for {series.nbytes} bytes, images here have at most {MAX_BYTES}; {advice}")
        if page.bitspersample > 1 and not _readable(int(page.compression)):
            name = getattr(page.compression, "name", None) or f"method {int(page.compression)}"
            raise UserError(f"{where}: compressed with {name}, which is not read; {_convert(name)}")
        if check is not None:
            check(tuple(series.shape), series.dtype)
        if page.bitspersample == 1:
            return _bilevel(source)
        palette = page.colormap if page.photometric == _PALETTE else None
        return Tiff(
            pixels=series.asarray(),
            axes=series.axes,
            white_is_zero=page.photometric == _WHITE_IS_ZERO,
            palette=None if palette is None else _eight_bits(palette),
            metadata=str(tiff.pages.first.tags.valueof(_GDAL_METADATA, "")),
        )


def _bilevel(source: bytes | Path) -> Tiff:
    """A picture of one bit per pixel as 0 and 255, black being 0: tifffile cannot tell how many bytes its strips unpack to."""
    from PIL import Image

    with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=("TIFF",)) as image:
        return Tiff(np.asarray(image.convert("L")), "YX", white_is_zero=False, palette=None, metadata="")


@contextmanager
def _errors(where: str, advice: str) -> Iterator[None]:
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except MemoryError as error:
        raise UserError(f"{where}: does not fit into memory; {advice}") from error
    # tifffile has no common exception: damaged bytes raise nearly every kind that Python has
    except Exception as error:
        if "imagecodecs" in str(error):
            raise UserError(f"{where}: stored in a way that is not read ({one_line(error, 120)}); {_convert('it')}") from error
        raise UserError(f"{where} is damaged ({one_line(error, 120) or type(error).__name__}); {advice}") from error


def _convert(what: str) -> str:
    return f"the file may be sound: convert {what} with `gdal_translate -co COMPRESS=DEFLATE IN OUT`, or pip install imagecodecs"


def _eight_bits(colormap: np.ndarray) -> np.ndarray:
    """uint8 (3, values) of a TIFF's colour map, which has 16 bits; some writers store 8."""
    return np.asarray(colormap if colormap.max() < 256 else colormap >> 8).astype(np.uint8)


@cache
def _bundled() -> bool:
    """Whether the codecs of this module are used: imagecodecs has its own."""
    return importlib.util.find_spec("imagecodecs") is None


def _readable(compression: int) -> bool:
    return not _bundled() or compression == _NONE or compression in _CODECS


@cache
def _use_codecs() -> None:
    """Let tifffile find the codecs of this module before its own; once per process."""
    import tifffile

    # what it has to say about damaged files is in the message of the UserError
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    if _bundled():
        theirs = cast("MutableMapping[int, Any]", tifffile.TIFF.DECOMPRESSORS)
        tifffile.TIFF.DECOMPRESSORS = ChainMap(_CODECS, theirs)  # pyright: ignore[reportAttributeAccessIssue]


def _inflate(data: bytes, /, *, out: int) -> bytes:
    """Unpack deflate, and check its sum, to little more than the `out` bytes that are wanted."""
    stream = zlib.decompressobj()
    content = stream.decompress(data, out + _SPARE)
    if not stream.eof:
        raise zlib.error("incomplete or truncated" if len(content) < out + _SPARE else f"unpacks to more than {out} bytes")
    return content


def _by_libtiff(compression: int, data: bytes, /, *, out: int) -> bytes:
    """Unpack `out` bytes with libtiff, as the one strip of a grey picture with a row of `out` pixels (TIFF 6.0, section 4)."""
    from PIL import Image

    entries = (
        (256, 4, out),  # columns
        (257, 4, 1),  # rows
        (258, 3, 8),  # bits
        (259, 3, compression),
        (262, 3, 1),  # black is zero
        (273, 4, 8),  # where the strip begins
        (277, 3, 1),  # bands
        (278, 4, 1),  # rows of a strip
        (279, 4, len(data)),
    )
    body = bytes(data) + b"\0" * (len(data) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    file = struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + directory + struct.pack("<I", 0)
    with Image.open(BytesIO(file), formats=("TIFF",)) as image:
        return image.tobytes()


_CODECS: dict[int, Any] = {
    _LZW: partial(_by_libtiff, _LZW),
    _PACKBITS: partial(_by_libtiff, _PACKBITS),
    _DEFLATE: _inflate,
    _ADOBE_DEFLATE: _inflate,
}
