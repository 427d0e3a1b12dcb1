"""Cuts large images into tiles, and marks which of their pixels count, so that every pixel counts once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caco_assets.downstream.datasets.image_decoding import IGNORE


@dataclass(frozen=True)
class Scene:
    """One image as its authors ship it, with all its dates."""

    name: str
    height: int
    width: int
    group: str = ""
    """Images of one place form a group: the bootstrap draws them together, and no split separates them."""


@dataclass(frozen=True)
class Tile:
    """A square cut from a scene.

    Tiles at the lower and right edge overlap their neighbours, so that they are filled; pixels that a neighbour has counted
    are not counted again.
    """

    scene: str
    row: int
    col: int
    skip_rows: int = 0
    """Rows at the top already counted by the tile above."""
    skip_cols: int = 0
    """Columns at the left already counted by the previous tile."""
    group: str = ""

    @property
    def name(self) -> str:
        """Of the item in paired tests."""
        return f"{self.scene}@{self.row},{self.col}"


def grid(scene: Scene, side: int) -> list[Tile]:
    """Tiles that cover a scene; every pixel is counted in exactly one of them."""
    group = scene.group or scene.name
    return [
        Tile(scene.name, row, col, skip_rows, skip_cols, group)
        for row, skip_rows in _starts(scene.height, side)
        for col, skip_cols in _starts(scene.width, side)
    ]


def cut(image: np.ndarray, mask: np.ndarray, tile: Tile, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The tile's images (T, C, side, side) and mask (side, side), with `IGNORE` where pixels do not count here.

    Scenes smaller than a tile are mirrored at their lower and right edge, and the mirrored part does not count.
    """
    rows, cols = slice(tile.row, tile.row + side), slice(tile.col, tile.col + side)
    image, mask = image[..., rows, cols], mask[rows, cols].copy()
    mask[: tile.skip_rows] = IGNORE
    mask[:, : tile.skip_cols] = IGNORE
    missing = [(0, side - mask.shape[0]), (0, side - mask.shape[1])]
    if any(after for _, after in missing):
        image = np.pad(image, [(0, 0), (0, 0), *missing], mode="symmetric")
        mask = np.pad(mask, missing, constant_values=IGNORE)
    return image, mask


def _starts(length: int, side: int) -> list[tuple[int, int]]:
    """Where tiles begin along one axis, and how much of each the previous one has counted."""
    whole = [(start, 0) for start in range(0, length - side + 1, side)]
    rest = length - len(whole) * side
    if not whole:
        return [(0, 0)]
    return whole if rest == 0 else [*whole, (length - side, side - rest)]
