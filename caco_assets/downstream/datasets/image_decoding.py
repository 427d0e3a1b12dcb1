"""Decodes images of dense tasks, and refuses files that are larger than, or differ from, what the authors ship."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import IO, TYPE_CHECKING

import numpy as np

from caco_assets.core.errors import UserError, one_line
from caco_assets.downstream.datasets.archives import Archives
from caco_assets.downstream.datasets.tiff import read_tiff

if TYPE_CHECKING:
    from PIL import Image

IGNORE = 255
"""Mask value of pixels that are not scored."""
PIXELS = 1 << 29
"""Most pixels of an image; the largest mosaic of a data set has 0.33 gigapixels, which exceeds Pillow's own limit."""
# A PNG or JPEG in its file; the largest of a data set has a few megabytes.
_MAX_PICTURE = 256 << 20
_MAX_ENTRIES = 4096
_AGAIN = "fetch the data set again"
# Tags of a TIFF, and their number types: uint16, uint32, uint64.
_WIDTH, _HEIGHT = 256, 257
_KINDS = {3: "H", 4: "I", 16: "Q"}


def side_of(archives: Archives, name: str) -> tuple[int, int]:
    """Height and width from the header alone.

    Raises:
        UserError: it is not an image, or damaged.
    """
    with archives.open(name) as stream:
        if not name.lower().endswith((".tif", ".tiff")):
            with _picture(archives, name, stream) as image:
                return image.height, image.width
        try:
            height, width = _tif_side(stream)
        except (OSError, ValueError, KeyError, EOFError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile) as error:
            raise _damaged(archives, name, error) from error
        check_pixels(archives, name, height, width)
        return height, width


def _tif_side(stream: IO[bytes]) -> tuple[int, int]:
    """Height and width from the first directory of a TIFF or BigTIFF (TIFF 6.0, section 2); no pixel is read."""
    head = stream.read(16)
    order = {b"II": "<", b"MM": ">"}[head[:2]]
    (version,) = struct.unpack(f"{order}H", head[2:4])
    # a BigTIFF has offsets of eight bytes, and entries of twenty
    big = {42: False, 43: True}[version]
    (start,) = struct.unpack(f"{order}Q", head[8:16]) if big else struct.unpack(f"{order}I", head[4:8])
    stream.seek(start)
    (count,) = struct.unpack(f"{order}Q", stream.read(8)) if big else struct.unpack(f"{order}H", stream.read(2))
    if count > _MAX_ENTRIES:
        raise ValueError(f"{count} entries in its directory")
    size = 20 if big else 12
    entries = stream.read(count * size)
    sides = {}
    for at in range(0, len(entries), size):
        tag, kind = struct.unpack_from(f"{order}HH", entries, at)
        if tag in (_WIDTH, _HEIGHT):
            (sides[tag],) = struct.unpack_from(f"{order}{_KINDS[kind]}", entries, at + size - (8 if big else 4))
    return int(sides[_HEIGHT]), int(sides[_WIDTH])


def read_image(archives: Archives, name: str, *, mask: bool = False) -> np.ndarray:
    """A TIFF, PNG or JPEG by its suffix; see `read_tif` and `read_picture`."""
    read = read_tif if name.lower().endswith((".tif", ".tiff")) else read_picture
    return read(archives, name, mask=mask)


def read_tif(archives: Archives, name: str, *, mask: bool = False) -> np.ndarray:
    """A GeoTIFF as (bands, H, W), or (H, W) if it has one band; a palette becomes the colours (3, H, W) that it shows.

    Args:
        archives: of the data set.
        name: of the member.
        mask: refuse a palette that shows two of its numbers alike.

    Raises:
        UserError: damaged, too large, or stored in a way that is not read.
    """
    tiff = read_tiff(archives.read(name), f"{archives.root}: {name}", check=partial(_check_axes, archives, name), advice=_AGAIN)
    array = tiff.pixels
    if tiff.palette is not None and array.ndim == 2 and array.dtype == np.uint8:
        return _shown(archives, name, array, tiff.palette, mask=mask)
    if tiff.white_is_zero and array.dtype == np.uint8:
        array = 255 - array
    # bands come last in pixel-interleaved files and first in the others; tifffile names the axis S, C, I or Q
    return np.moveaxis(array, -1, 0) if array.ndim == 3 and not tiff.axes.endswith("X") else array


def _check_axes(archives: Archives, name: str, shape: tuple[int, ...], _: np.dtype) -> None:
    if len(shape) not in (2, 3):
        raise UserError(f"{archives.root}: {name} has {len(shape)} axes; an image has rows, columns and perhaps bands")


def read_picture(archives: Archives, name: str, *, mask: bool = False) -> np.ndarray:
    """A PNG or JPEG as (3, H, W) uint8 if it is in colour or has a palette, (H, W) if it is grey.

    Args:
        archives: of the data set.
        name: of the member.
        mask: refuse transparent pixels, and a palette that shows two of its numbers alike.

    Raises:
        UserError: damaged, too large, or of a mode that no data set uses.
    """
    with _picture(archives, name, archives.read(name, _MAX_PICTURE)) as image:
        if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
            raise UserError(
                f"{archives.root}: {name} is a picture of mode {image.mode}; RGB or 8-bit grey belongs there, convert it to that"
            )
        if mask and image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
            raise UserError(f"{archives.root}: {name} has transparent pixels, whose class is not shown; save the mask without them")
        if image.mode == "P":
            palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3).T
            return _shown(archives, name, np.asarray(image), palette, mask=mask)
        return np.asarray(image.convert("L")) if image.mode in ("1", "L") else np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def _shown(archives: Archives, name: str, numbers: np.ndarray, palette: np.ndarray, *, mask: bool) -> np.ndarray:
    """uint8 (3, H, W): the colours of the numbers (H, W) by a palette (3, values)."""
    used = np.flatnonzero(np.bincount(numbers.ravel(), minlength=256))
    if used[-1] >= palette.shape[1]:
        raise UserError(f"{archives.root}: {name} has the number {used[-1]}, its palette has {palette.shape[1]} colours; {_AGAIN}")
    if mask and np.unique(palette[:, used], axis=1).shape[1] < len(used):
        raise UserError(
            f"{archives.root}: {name} has a palette with one colour for several of its numbers ({', '.join(map(str, used[:8]))}), "
            "so it does not show which class they mean; save the mask in grey, as its authors do"
        )
    return palette[:, numbers]


@contextmanager
def _picture(archives: Archives, name: str, source: bytes | IO[bytes]) -> Iterator[Image.Image]:
    """An opened PNG or JPEG of a size that data sets have; its pixels are decoded only when they are asked for."""
    from PIL import Image

    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=("PNG", "JPEG")) as image:
            check_pixels(archives, name, image.height, image.width)
            yield image
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{archives.root}: {name} is larger than any picture ({one_line(error, 120)}); {_AGAIN}") from error
    except MemoryError as error:
        raise UserError(f"{archives.root}: {name} does not fit into memory; {_AGAIN}") from error
    # damaged bytes raise nearly every kind of exception in Pillow's readers, and some in those of the archive
    except Exception as error:
        raise _damaged(archives, name, error) from error


def check_pixels(archives: Archives, name: str, height: int, width: int) -> None:
    """Refuse an image without pixels, or with more than any data set has.

    Raises:
        UserError: names the size.
    """
    if not 0 < height * width <= PIXELS:
        raise UserError(f"{archives.root}: {name} is {width}×{height} in its header; images here have 1 to {PIXELS} pixels")


def expect(archives: Archives, name: str, array: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array, after checking its shape and type.

    Raises:
        UserError: the shape or type differs.
    """
    if array.shape != shape or array.dtype != np.dtype(dtype):
        found, wanted = ("×".join(str(side) for side in each) for each in (array.shape, shape))
        raise UserError(
            f"{archives.root}: {name} is {found} {array.dtype}; {wanted} {dtype} belongs there, as its authors publish it"
        )
    return array


def _damaged(archives: Archives, name: str, error: Exception) -> UserError:
    return UserError(f"{archives.root}: {name} is damaged ({one_line(error, 120) or type(error).__name__}); {_AGAIN}")
