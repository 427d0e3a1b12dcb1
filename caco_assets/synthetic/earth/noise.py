"""Hashed noise on the world grid: every value depends on world coordinates and a key alone, so overlapping windows agree.

Only additions, multiplications, divisions, square roots and floors touch pixels; IEEE 754 rounds those alike everywhere, so the
same window has the same numbers on every machine. Value noise after K. Perlin, "An Image Synthesizer" (1985), with the bit mixer
of MurmurHash3; cell noise after S. Worley, "A Cellular Texture Basis Function" (1996).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
"""Double precision: coordinates and all that decides a class."""
Singles = npt.NDArray[np.floating[Any]]
"""Single precision: pictures."""
Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

PIXEL = 10.0
"""Metres per pixel of the world grid."""

_ONE = 1.0 / 2**32
# Standard deviation of smoothstep value noise with uniform [-1, 1] lattice values: sqrt(1/3) * mean(t² + (1-t)²) over the cell.
_VALUE_NOISE_STD = 0.43


@lru_cache(maxsize=65536)
def key_of(*parts: str | int) -> int:
    """A 32-bit key from names and numbers, the same on every machine."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def generator(*parts: str | int) -> np.random.Generator:
    """A generator that belongs to these names alone (draw `random` and `integers` from it: both are exact)."""
    text = "/".join(str(part) for part in parts)
    return np.random.Generator(
        np.random.Philox(key=int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little"))
    )


def hash32(i: npt.NDArray[np.integer], j: npt.NDArray[np.integer], key: int) -> Words:
    """Mix integer coordinates (broadcast against each other) and a key into 32 well spread bits."""
    h = np.bitwise_xor(i.astype(np.uint32) * np.uint32(0x9E3779B1), j.astype(np.uint32) * np.uint32(0x85EBCA77))
    h ^= np.uint32(key)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    return h


def uniform(i: npt.NDArray[np.integer], j: npt.NDArray[np.integer], key: int) -> Floats:
    """Hash of integer coordinates as a number in [0, 1)."""
    return hash32(i, j, key) * _ONE


@dataclass(frozen=True)
class Frame:
    """World pixels: `cols` (W,) count east and `rows` (H,) count south from the city centre, in pixels of 10 m."""

    cols: Integers
    rows: Integers

    @cached_property
    def x(self) -> Floats:
        """Metres east of the city centre of the pixel centres, shape (W,)."""
        return (self.cols + 0.5) * PIXEL

    @cached_property
    def y(self) -> Floats:
        """Metres south of the city centre of the pixel centres, shape (H,)."""
        return (self.rows + 0.5) * PIXEL

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return len(self.rows), len(self.cols)

    def white(self, key: int) -> Singles:
        """One independent number in [0, 1) per pixel, shape (H, W)."""
        return hash32(self.cols[None, :], self.rows[:, None], key).astype(np.float32) * np.float32(_ONE)


def _lattice(position: Floats) -> tuple[Integers, Floats, int, int]:
    """Cell index from its first cell, smooth position inside the cell, first cell, number of lattice points."""
    floor = np.floor(position)
    t = position - floor
    cell = floor.astype(np.int64)
    first = int(cell.min())
    return cell - first, t * t * (3.0 - 2.0 * t), first, int(cell.max()) - first + 2


def _table(first_i: int, count_i: int, first_j: int, count_j: int, key: int) -> Floats:
    i, j = np.arange(first_i, first_i + count_i), np.arange(first_j, first_j + count_j)
    return uniform(i[None, :], j[:, None], key) * 2.0 - 1.0


def value(frame: Frame, scale: float, key: int) -> Singles:
    """Value noise in [-1, 1] over a frame, shape (H, W); `scale` is the cell's side in metres."""
    i, s, i0, ni = _lattice(frame.x / scale)
    j, t, j0, nj = _lattice(frame.y / scale)
    table = _table(i0, ni, j0, nj, key).astype(np.float32)
    s, t = s.astype(np.float32)[None, :], t.astype(np.float32)[:, None]
    lines = table[j] + t * (table[j + 1] - table[j])  # (H, cells)
    left, right = np.take(lines, i, axis=1), np.take(lines, i + 1, axis=1)
    right -= left
    right *= s
    right += left
    return right


def fbm(frame: Frame, scale: float, octaves: int, key: int, gain: float = 0.5) -> Singles:
    """Sum of octaves of value noise with unit standard deviation, shape (H, W); `scale` is the coarsest cell in metres."""
    total = np.zeros(frame.shape, np.float32)
    weight, power = 1.0, 0.0
    for octave in range(octaves):
        total += np.float32(weight) * value(frame, scale / 2**octave, key_of(key, octave))
        power += weight * weight
        weight *= gain
    total *= np.float32(1.0 / (_VALUE_NOISE_STD * float(np.sqrt(power))))
    return total


def value_at(x: Floats, y: Floats, scale: tuple[float, float], key: int) -> Floats:
    """Value noise in [-1, 1] at scattered points (metres), cells of `scale` metres (along x, along y)."""
    if x.size == 0:
        return np.zeros(x.shape)
    i, s, i0, ni = _lattice(x / scale[0])
    j, t, j0, nj = _lattice(y / scale[1])
    table = _table(i0, ni, j0, nj, key).ravel()
    at = j * ni + i
    low = table[at] + s * (table[at + 1] - table[at])
    at += ni
    high = table[at] + s * (table[at + 1] - table[at])
    return low + t * (high - low)


def line(x: Floats, scale: float, key: int) -> tuple[Floats, Floats]:
    """Smooth noise of one coordinate in [-1, 1] and its slope per metre: the course of a river or a road."""
    position = x / scale
    i, s, i0, ni = _lattice(position)
    table = _table(i0, ni, 0, 1, key).ravel()
    t = position - np.floor(position)
    step = table[i + 1] - table[i]
    return table[i] + s * step, 6.0 * t * (1.0 - t) * step / scale


@dataclass(frozen=True)
class Cells:
    """Nearest-point cells of scattered points: integer name (`i`, `j`) of each point's cell, distance to it and to the next."""

    i: Integers
    j: Integers
    nearest: Floats
    second: Floats

    def pick(self, key: int) -> Floats:
        """One number in [0, 1) per cell, at each point."""
        return uniform(self.i, self.j, key)

    def slot(self, key: int, slots: int) -> Integers:
        """One integer in [0, slots) per cell, at each point."""
        return (hash32(self.i, self.j, key) % np.uint32(slots)).astype(np.int64)


def cells(x: Floats, y: Floats, size: float, key: int, jitter: float = 0.85) -> Cells:
    """Voronoi cells around one jittered point per square of `size` metres."""
    u, v = x / size, y / size
    i, j = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    if x.size == 0:
        return Cells(i, j, np.zeros(x.shape), np.zeros(x.shape))
    i0, j0 = int(i.min()) - 1, int(j.min()) - 1
    ni, nj = int(i.max()) - i0 + 2, int(j.max()) - j0 + 2
    names_i, names_j = np.arange(i0, i0 + ni)[None, :], np.arange(j0, j0 + nj)[:, None]
    px = (names_i + 0.5 + jitter * (uniform(names_i, names_j, key_of(key, "x")) - 0.5)).ravel()
    py = (names_j + 0.5 + jitter * (uniform(names_i, names_j, key_of(key, "y")) - 0.5)).ravel()
    home = (j - j0) * ni + (i - i0)
    best = np.full(x.shape, 9.0)
    second = np.full(x.shape, 9.0)
    owner = home.copy()
    for step in (a + b * ni for b in (-1, 0, 1) for a in (-1, 0, 1)):
        at = home + step
        dx, dy = px[at] - u, py[at] - v
        distance = dx * dx + dy * dy
        closer = distance < best
        np.minimum(second, np.where(closer, best, distance), out=second)
        owner[closer] = at[closer]
        np.minimum(best, distance, out=best)
    return Cells(owner % ni + i0, owner // ni + j0, np.sqrt(best) * size, np.sqrt(second) * size)


@dataclass(frozen=True)
class Bricks:
    """Rectangular parcels in strips: name (`i` along, `j` across) and distance to the parcel's edges in metres."""

    i: Integers
    j: Integers
    edge: Floats
    along: Floats
    """Metres from the parcel's start along the strip."""

    def pick(self, key: int) -> Floats:
        """One number in [0, 1) per parcel, at each point."""
        return uniform(self.i, self.j, key)

    def slot(self, key: int, slots: int) -> Integers:
        """One integer in [0, slots) per parcel, at each point."""
        return (hash32(self.i, self.j, key) % np.uint32(slots)).astype(np.int64)


def _stretch(position: Floats, salt: Integers, key: int, jitter: float) -> tuple[Integers, Floats, Floats]:
    """Index of the jittered interval (unit mean length) that holds `position`, distance to its start and to its end."""
    cell = np.floor(position).astype(np.int64)
    start = cell + jitter * (uniform(cell, salt, key) - 0.5)
    cell = cell - (position < start)
    start = cell + jitter * (uniform(cell, salt, key) - 0.5)
    end = cell + 1 + jitter * (uniform(cell + 1, salt, key) - 0.5)
    over = position >= end
    start = np.where(over, end, start)
    cell = cell + over
    end = np.where(over, cell + 1 + jitter * (uniform(cell + 1, salt, key) - 0.5), end)
    return cell, position - start, end - position


def bricks(u: Floats, v: Floats, length: float, width: float, key: int, jitter: float = 0.7) -> Bricks:
    """Parcels of about `length` x `width` metres along the axes `u`, `v`: strips of varying width, each cut at its own places."""
    strip, before, after = _stretch(v / width, np.zeros(1, np.int64), key_of(key, "strip"), jitter)
    shift = uniform(strip, np.zeros(1, np.int64), key_of(key, "shift"))
    parcel, start, end = _stretch(u / length + shift, strip, key_of(key, "cut"), jitter)
    edge = np.minimum(np.minimum(before, after) * width, np.minimum(start, end) * length)
    return Bricks(parcel, strip, edge, start * length)
