"""Locates the blocks of a GeoTIFF from its first bytes, and builds a small in-memory file that holds only some of them.

Knowing the blocks before reading makes it possible to request those of many chips at once. GDAL still decodes: the file
in memory is the same image, with the same tags and the unmodified blocks, and its other blocks are unreachable (reading one
is an error, never an empty pixel). Layout: TIFF 6.0; BigTIFF; GeoTIFF 1.1 (OGC 19-008).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from caco_assets.imagery.reading.http.range_response import FileVersion

_TYPES = {
    **{1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u8", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "u8", 11: "f4", 12: "f8"},
    **{16: "u8", 17: "i8", 18: "u8"},
}
"""Field types of TIFF and BigTIFF as numpy knows them (fractions as the eight bytes that they are)."""
_WIDTH, _HEIGHT, _SAMPLES, _ROWS_PER_STRIP, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 277, 278, 284, 322, 323
_STRIPS, _TILES = (273, 279), (324, 325)
"""Offsets and byte counts."""
_PIXEL_SCALE, _TIE_POINTS, _MATRIX, _GEO_KEYS = 33550, 33922, 34264, 34735
_GEOGRAPHIC, _PROJECTED = 2048, 3072
_USER_DEFINED = 32_767
_SEPARATE = 2
_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2
# in a first directory they point to positions in the file that the copy lacks
_LEFT_OUT = {*_STRIPS, *_TILES, 330, 34665, 34853}
_UNREACHABLE = 1 << 48
_BIG = 8
_SUBFILE, _MASK = 254, 4
_COG_NOTES, _COG_MASK = 1024, b"MASK_INTERLEAVED_WITH_IMAGERY=YES"
"""GDAL's notes on the layout of a COG, right after the header."""
Order = Literal["<", ">"]
_ORDERS: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
_MOST_BLOCKS = 1 << 22


class NeedMoreError(Exception):
    """The index reaches beyond the bytes at hand: `stop` of them are needed."""

    def __init__(self, stop: int) -> None:
        super().__init__(stop)
        self.stop = stop


@dataclass(frozen=True)
class TiffIndex:
    """The first image of a TIFF."""

    width: int
    height: int
    block_width: int
    block_height: int
    planes: int
    """1, or the number of bands if each has its own blocks."""
    offsets: NDArray[np.uint64]
    """Of the blocks, in the order of the file format: plane, row, column; 0 of a block that was never written."""
    counts: NDArray[np.uint64]
    """Bytes of each."""
    transform: Affine
    """Pixel corner → projection."""
    epsg: int
    order: Order
    """Of the bytes."""
    tags: Mapping[int, tuple[int, int, bytes]]
    """Tag → type, count, value; without those that locate blocks."""
    tiled: bool
    version: FileVersion | None = None
    """Of the file that the index was read from; its blocks must come from the same."""

    def blocks(self, left: int, top: int, right: int, bottom: int, bands: Iterable[int]) -> NDArray[np.int64]:
        """Numbers of the blocks that a window of pixels (half-open, cut at the edges) of some bands (from 1) touches."""
        across, down = -(-self.width // self.block_width), -(-self.height // self.block_height)
        columns = np.arange(max(left, 0) // self.block_width, -(-min(right, self.width) // self.block_width))
        rows = np.arange(max(top, 0) // self.block_height, -(-min(bottom, self.height) // self.block_height))
        planes = np.array([0] if self.planes == 1 else sorted({band - 1 for band in bands}))
        return (planes[:, None, None] * across * down + rows[:, None] * across + columns).ravel()

    def extract(self, parts: Mapping[int, bytes]) -> bytes:
        """A BigTIFF of the same image that holds only the given blocks (number → bytes)."""
        offsets = np.where(self.counts > 0, np.uint64(_UNREACHABLE), np.uint64(0))
        counts = self.counts.copy()
        where, body = 16, []
        for number, data in parts.items():
            offsets[number], counts[number] = where, len(data)
            where += len(data)
            body.append(data)
        places, sizes = _TILES if self.tiled else _STRIPS
        long8 = np.dtype("u8").newbyteorder(self.order)
        tags = {tag: entry for tag, entry in self.tags.items() if tag not in _LEFT_OUT}
        tags[places] = (16, len(offsets), offsets.astype(long8).tobytes())
        tags[sizes] = (16, len(counts), counts.astype(long8).tobytes())
        directory, values, free = [], [], where + 8 + 20 * len(tags) + 8
        for tag in sorted(tags):
            kind, count, value = tags[tag]
            if len(value) <= _BIG:
                field = value.ljust(_BIG, b"\0")
            else:
                field = struct.pack(f"{self.order}Q", free)
                values.append(value)
                free += len(value)
            directory.append(struct.pack(f"{self.order}HHQ", tag, kind, count) + field)
        mark = b"II" if self.order == "<" else b"MM"
        head = mark + struct.pack(f"{self.order}HHHQ", 43, _BIG, 0, where)
        return b"".join([head, *body, struct.pack(f"{self.order}Q", len(tags)), *directory, b"\0" * 8, *values])


def read_index(head: bytes) -> TiffIndex | None:
    """The index from the first bytes of a file; None if it is not a TIFF, or one that is left to GDAL.

    Files without the usual georeference (north up, an EPSG code) are left to GDAL, and so are those with a mask (it is an image of
    its own) and those whose numbers are none.

    Raises:
        NeedMoreError: more bytes from the beginning are needed.
    """
    try:
        with np.errstate(all="raise"):
            return _read(head)
    except (ValueError, OverflowError, FloatingPointError, LookupError, struct.error):
        return None


def _read(head: bytes) -> TiffIndex | None:
    order = _ORDERS.get(head[:2])
    tags = None if order is None or len(head) < 16 else _directory(head, order)
    if order is None or tags is None or not {_WIDTH, _HEIGHT} <= tags.keys() or _has_mask(head, order):
        return None
    tiled = _TILES[0] in tags
    places, sizes = _TILES if tiled else _STRIPS
    place = _place(tags, order)
    if place is None or not {places, sizes} <= tags.keys():
        return None
    number = {tag: int(_numbers(tags[tag], order)[0]) for tag in _SINGLE if tag in tags}
    width, height = number[_WIDTH], number[_HEIGHT]
    strip = width, min(number.get(_ROWS_PER_STRIP, height), height)
    across, down = (number.get(_TILE_WIDTH, 0), number.get(_TILE_HEIGHT, 0)) if tiled else strip
    planes = number.get(_SAMPLES, 1) if number.get(_PLANAR, 1) == _SEPARATE else 1
    offsets, counts = (_numbers(tags[tag], order).astype(np.uint64) for tag in (places, sizes))
    # an inconsistent file is left to GDAL
    if min(width, height, across, down) < 1 or not len(offsets) == len(counts) == -(-width // across) * -(-height // down) * planes:
        return None
    kept = {tag: entry for tag, entry in tags.items() if tag not in _LEFT_OUT}
    return TiffIndex(width, height, across, down, planes, offsets, counts, *place, order, kept, tiled)


_SINGLE = (_WIDTH, _HEIGHT, _SAMPLES, _ROWS_PER_STRIP, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT)


def _has_mask(head: bytes, order: Order) -> bool:
    """Whether a mask follows the image, as far as the first bytes show it."""
    if _COG_MASK in head[:_COG_NOTES]:
        return True
    version, start = struct.unpack_from(f"{order}H", head, 2)[0], struct.unpack_from(f"{order}I", head, 4)[0]
    count, entry, pointer = ("H", 12, "I") if version == 42 else ("Q", 20, "Q")
    if version == 43:
        (start,) = struct.unpack_from(f"{order}Q", head, 8)
    try:
        (entries,) = struct.unpack_from(f"{order}{count}", head, start)
        (second,) = struct.unpack_from(f"{order}{pointer}", head, start + struct.calcsize(f"={count}") + entries * entry)
        (entries,) = struct.unpack_from(f"{order}{count}", head, second)
        first = second + struct.calcsize(f"={count}")
        # tags are sorted: the kind of an image comes first
        tag, _ = struct.unpack_from(f"{order}HH", head, first)
        (kind,) = struct.unpack_from(f"{order}I", head, first + entry - struct.calcsize(f"={pointer}"))
    except struct.error:
        return False
    return second > 0 and entries > 0 and tag == _SUBFILE and bool(kind & _MASK)


def _directory(head: bytes, order: Order) -> dict[int, tuple[int, int, bytes]] | None:
    """Tag → type, count, value of the first directory; None if the file is not a TIFF."""
    (version,) = struct.unpack_from(f"{order}H", head, 2)
    if version == 42:
        (start,) = struct.unpack_from(f"{order}I", head, 4)
        count_form, entry_form, inline = "H", "HHI", 4
    elif version == 43:
        (start,) = struct.unpack_from(f"{order}Q", head, 8)
        count_form, entry_form, inline = "Q", "HHQ", 8
    else:
        return None
    first = start + struct.calcsize(f"={count_form}")
    (entries,) = struct.unpack(f"{order}{count_form}", _slice(head, start, first))
    step = struct.calcsize(f"={entry_form}") + inline
    table = _slice(head, first, first + entries * step)
    tags, stop = {}, 0
    for at in range(0, len(table), step):
        tag, kind, count = struct.unpack_from(f"{order}{entry_form}", table, at)
        if kind not in _TYPES or not 0 < count <= _MOST_BLOCKS:
            return None
        field, size = table[at + step - inline : at + step], count * int(_TYPES[kind][1])
        if size > inline:
            (where,) = struct.unpack(f"{order}{'I' if inline == 4 else 'Q'}", field)
            stop = max(stop, where + size)
            field = head[where : where + size]
        tags[tag] = (kind, count, field[:size])
    if stop > len(head):
        raise NeedMoreError(stop)
    return tags


def _slice(head: bytes, start: int, stop: int) -> bytes:
    if stop > len(head):
        raise NeedMoreError(stop)
    return head[start:stop]


def _numbers(entry: tuple[int, int, bytes], order: Order) -> NDArray:
    kind, _, value = entry
    return np.frombuffer(value, np.dtype(_TYPES[kind]).newbyteorder(order))


def _place(tags: Mapping[int, tuple[int, int, bytes]], order: Order) -> tuple[Affine, int] | None:
    """Transform and EPSG code."""
    if _MATRIX in tags or not {_GEO_KEYS, _PIXEL_SCALE, _TIE_POINTS} <= tags.keys():
        return None
    entries = _numbers(tags[_GEO_KEYS], order)[4:]
    entries = entries[: len(entries) // 4 * 4].reshape(-1, 4)  # (keys, [key, place of the value, count, value])
    keys = {int(key): int(value) for key, place, _, value in entries if place == 0}
    epsg = keys.get(_PROJECTED, keys.get(_GEOGRAPHIC, _USER_DEFINED))
    scale, tie = _numbers(tags[_PIXEL_SCALE], order), _numbers(tags[_TIE_POINTS], order)
    if epsg >= _USER_DEFINED or len(scale) < 2 or len(tie) != 6 or min(scale[:2]) <= 0:
        return None
    half = 0.5 if keys.get(_RASTER_TYPE) == _PIXEL_IS_POINT else 0.0
    left, top = tie[3] - (tie[0] + half) * scale[0], tie[4] + (tie[1] + half) * scale[1]
    return Affine(float(scale[0]), 0, float(left), 0, -float(scale[1]), float(top)), epsg
