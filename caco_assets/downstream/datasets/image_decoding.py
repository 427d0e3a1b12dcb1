"""Decodes images and masks of dense tasks, and refuses files that differ from what the authors ship."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import IO

import numpy as np

from caco_assets.core.errors import UserError, one_line
from caco_assets.downstream.datasets.archives import Archives

IGNORE = 255
"""Mask value of pixels that are not scored."""
# An image of 0.46 gigapixels exceeds Pillow's limit; here the size is known and checked.
_PIXELS = 1 << 29
# Tags of a TIFF, and their number types: uint16, uint32, uint64.
_WIDTH, _HEIGHT = 256, 257
_KINDS = {3: "H", 4: "I", 16: "Q"}


def side_of(archives: Archives, name: str) -> tuple[int, int]:
    """Height and width from the header alone.

    Raises:
        UserError: it is not an image, or damaged.
    """
    with archives.open(name) as stream:
        if name.lower().endswith((".tif", ".tiff")):
            try:
                return _tif_side(stream)
            except (OSError, ValueError, KeyError, struct.error, zlib.error, zipfile.BadZipFile) as error:
                raise _damaged(archives, name, error) from error
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(stream, formats=("PNG", "JPEG")) as image:
                return image.height, image.width
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise _damaged(archives, name, error) from error


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
    size = 20 if big else 12
    entries = stream.read(count * size)
    sides = {}
    for at in range(0, len(entries), size):
        tag, kind = struct.unpack_from(f"{order}HH", entries, at)
        if tag in (_WIDTH, _HEIGHT):
            (sides[tag],) = struct.unpack_from(f"{order}{_KINDS[kind]}", entries, at + size - (8 if big else 4))
    return int(sides[_HEIGHT]), int(sides[_WIDTH])


def read_tif(archives: Archives, name: str) -> np.ndarray:
    """A GeoTIFF as (bands, H, W), or (H, W) if it has one band.

    Raises:
        UserError: damaged.
    """
    import tifffile

    try:
        with tifffile.TiffFile(BytesIO(archives.read(name))) as tiff:
            series = tiff.series[0]
            array, axes = series.asarray(), series.axes
    except (tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError, struct.error, zlib.error) as error:
        raise _damaged(archives, name, error) from error
    # bands come last in pixel-interleaved files and first in the others; tifffile names the axis S, C, I or Q
    return np.moveaxis(array, -1, 0) if array.ndim == 3 and not axes.endswith("X") else array


def read_picture(archives: Archives, name: str) -> np.ndarray:
    """A PNG as (3, H, W) uint8 if it is in colour, (H, W) if it is grey or has a palette.

    Raises:
        UserError: damaged, or of a mode that no data set uses.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(archives.read(name)), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > _PIXELS:
                raise UserError(f"{archives.root}: {name} is {image.width}×{image.height}; no picture of this data set is so large")
            if image.mode in ("RGB", "RGBA"):
                return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            if image.mode in ("1", "L"):
                return np.asarray(image.convert("L"))
            if image.mode == "P":
                return np.asarray(image)
            raise UserError(f"{archives.root}: {name} is a picture of mode {image.mode}; RGB or 8-bit grey is what belongs there")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, zlib.error) as error:
        raise _damaged(archives, name, error) from error


def expect(archives: Archives, name: str, array: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array, after checking its shape and type.

    Raises:
        UserError: the shape or type differs.
    """
    if array.shape != shape or array.dtype != np.dtype(dtype):
        found, wanted = ("×".join(str(side) for side in each) for each in (array.shape, shape))
        raise UserError(f"{archives.root}: {name} is {found} {array.dtype}; {wanted} {dtype} belongs there, fetch it again")
    return array


def coded(archives: Archives, name: str, mask: np.ndarray, codes: Mapping[int, int]) -> np.ndarray:
    """The mask with its codes mapped to ours, uint8 (H, W).

    Args:
        archives: for the message.
        name: of the mask.
        mask: (H, W) uint8.
        codes: the file's value → class or `IGNORE`.

    Raises:
        UserError: a value without a class.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        found = "×".join(str(side) for side in mask.shape)
        raise UserError(f"{archives.root}: {name} is {found} {mask.dtype}; a mask is one band of uint8, fetch it again")
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if unknown := [int(value) for value in present if int(value) not in codes]:
        known = ", ".join(str(code) for code in sorted(codes))
        raise UserError(f"{archives.root}: {name} has the value {unknown[0]}, the classes are {known}; fetch it again")
    table = np.full(256, IGNORE, np.uint8)
    table[list(codes)] = list(codes.values())
    return table[mask]


def change_mask(archives: Archives, name: str, mask: np.ndarray) -> np.ndarray:
    """A change mask as 0 and 1: the authors write 0 and 255, some copies 0 and 1.

    Raises:
        UserError: any other value, or bands that differ.
    """
    if mask.ndim == 3:  # some tools save grey masks in colour
        if (mask != mask[0]).any():
            raise UserError(f"{archives.root}: {name} is a picture in colour; a mask of change is black and white, fetch it again")
        mask = mask[0]
    return coded(archives, name, mask, {0: 0, 1: 1, 255: 1})


def _damaged(archives: Archives, name: str, error: Exception) -> UserError:
    return UserError(f"{archives.root}: {name} is damaged ({one_line(error, 120)}); fetch the data set again")
