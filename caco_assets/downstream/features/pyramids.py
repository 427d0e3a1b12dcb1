"""Feature levels of tiles for a decoder: cached, encoded at every step, or from an encoder that is trained too.

Training rotates and flips tiles. Encoders are not equivariant to that (strides and padding are asymmetric), so features are never
rotated: each of the eight orientations of a tile is encoded separately.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from caco_assets.core.atomic import make_missing
from caco_assets.core.progress import Progress
from caco_assets.downstream.datasets.classification import key
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import PixelFormat

logger = logging.getLogger(__name__)

POSITIONS = 8
"""Quarter turns, with and without a flip; 0 is the original tile."""
_BATCH = 32


def turned(array: np.ndarray, position: int) -> np.ndarray:
    """The array with its last two axes in one of the eight orientations of a square."""
    array = np.rot90(array, position % 4, axes=(-2, -1))
    return array[..., ::-1] if position >= 4 else array


@dataclass(frozen=True)
class Tiles:
    """Decoded tiles of one part."""

    images: np.ndarray
    """(N, T, C, H, W) as stored by the authors."""
    masks: np.ndarray
    """(N, H, W) uint8."""
    fmt: PixelFormat

    def __len__(self) -> int:
        return len(self.images)

    def pictures(self, index: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        """(B, T, C, H, W), each tile in its orientation."""
        return np.stack([turned(self.images[i], position) for i, position in zip(index, positions, strict=True)])

    def truth(self, index: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        """(B, H, W) uint8, oriented as the images."""
        return np.stack([turned(self.masks[i], position) for i, position in zip(index, positions, strict=True)])


class Pyramids(Protocol):
    """Source of a decoder's feature levels."""

    def levels(self, tiles: Tiles, index: Sequence[int], positions: Sequence[int]) -> list[Tensor]:
        """Five levels (B, D_i, h_i, w_i) float32 on the device: of one date, or the absolute differences of two."""
        ...


def of_images(encoder: Encoder, pictures: np.ndarray, fmt: PixelFormat) -> list[Tensor]:
    """Five levels of (B, T, C, H, W) integers: unchanged for one date, absolute differences for two."""
    count, dates, channels, height, width = pictures.shape
    images = encoder.preprocess(pictures.reshape(count * dates, channels, height, width), fmt, height)
    levels = encoder.pyramid(images)
    if dates == 1:
        return list(levels)
    # (B·2, D, h, w) → (B, D, h, w)
    return [(pair[:, 0] - pair[:, 1]).abs() for pair in (level.unflatten(0, (count, 2)) for level in levels)]


@dataclass(frozen=True)
class Fresh:
    """A frozen encoder in evaluation mode, run at every step."""

    encoder: Encoder

    def levels(self, tiles: Tiles, index: Sequence[int], positions: Sequence[int]) -> list[Tensor]:
        """Encode now."""
        with torch.no_grad():
            return [level.float() for level in of_images(self.encoder.eval(), tiles.pictures(index, positions), tiles.fmt)]


class Tuned(nn.Module):
    """A copy of an encoder that is trained with the decoder."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)

    def levels(self, tiles: Tiles, index: Sequence[int], positions: Sequence[int]) -> list[Tensor]:
        """Encode now, with gradients in training mode."""
        return of_images(self.encoder, tiles.pictures(index, positions), tiles.fmt)


@dataclass(frozen=True)
class Kept:
    """Levels of every tile in every orientation, float16 on disk, read through the page cache."""

    files: tuple[Path, ...]
    """One array (positions, N, D_i, h_i, w_i) for each level."""
    device: torch.device

    def levels(self, tiles: Tiles, index: Sequence[int], positions: Sequence[int]) -> list[Tensor]:
        """Read from the files."""
        del tiles
        arrays = (np.load(file, mmap_mode="r") for file in self.files)
        return [torch.from_numpy(array[list(positions), list(index)]).to(self.device).float() for array in arrays]


def pyramids(encoder: Encoder, identity: str, tiles: Tiles, stem: str, positions: int, cache: Path, limit: float) -> Pyramids:
    """The levels of a part: cached if they fit, else encoded at every step.

    Args:
        encoder: frozen, on its device.
        identity: its `identity`.
        tiles: of the part.
        stem: identifies the part's data.
        positions: 8 for training, 1 for original tiles.
        cache: folder for the levels; it can be deleted at any time.
        limit: maximum size of one part's levels, bytes.
    """
    device = encoder.mean.device
    with torch.no_grad():
        shapes = [tuple(level.shape[1:]) for level in of_images(encoder.eval(), tiles.pictures([0], [0]), tiles.fmt)]
    size = sum(int(np.prod(shape)) for shape in shapes) * 2 * positions * len(tiles)
    if size > limit:
        logger.info(f"features of {len(tiles)} tiles take {size / 1e9:.1f} GB of {limit / 1e9:.1f} allowed: encoded at every step")
        return Fresh(encoder)
    name = key("pyramid-1", identity, stem, positions)
    files = tuple(cache / f"{name}-{level}.npy" for level in range(len(shapes)))

    def encode(*scratch: Path) -> None:
        arrays = [
            np.lib.format.open_memmap(file, "w+", np.dtype("float16"), (positions, len(tiles), *shape))
            for file, shape in zip(scratch, shapes, strict=True)
        ]
        progress = Progress("encode tiles", positions * len(tiles), "tile")
        fresh = Fresh(encoder)
        for position in range(positions):
            for batch in batches(len(tiles), _BATCH):
                for array, level in zip(arrays, fresh.levels(tiles, batch, [position] * len(batch)), strict=True):
                    array[position, batch[0] : batch[-1] + 1] = level.half().cpu().numpy()
                progress.advance(len(batch))
        progress.close()
        for array in arrays:
            array.flush()

    make_missing(files, encode)
    return Kept(files, device)


def batches(count: int, size: int) -> Iterator[list[int]]:
    """Consecutive positions, `size` at a time."""
    for start in range(0, count, size):
        yield list(range(start, min(start + size, count)))
