"""Keeps a few predicted masks of a decoder for visual inspection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from caco_assets.core.atomic import replacing
from caco_assets.downstream.datasets.image_decoding import IGNORE
from caco_assets.downstream.datasets.tiles import Tile

MOST = 3
"""Number of tiles kept."""


class Examples:
    """Selects tiles by their truth alone, so that all encoders get the same ones, and keeps their predictions."""

    def __init__(self, tiles: Sequence[Tile], masks: np.ndarray) -> None:
        """Choose among a part's tiles by their masks (N, H, W) uint8."""
        self._tiles = tiles
        self._chosen = set(chosen(tiles, masks))
        self.kept: dict[str, np.ndarray] = {}
        """Name of the tile → (H, W) uint8 classes."""

    def see(self, start: int, classes: np.ndarray) -> None:
        """Add predictions (B, H, W) uint8 for the tiles from position `start` on."""
        for position in sorted(self._chosen & set(range(start, start + len(classes)))):
            self.kept[self._tiles[position].name] = np.array(classes[position - start], np.uint8)


def chosen(tiles: Sequence[Tile], masks: np.ndarray) -> list[int]:
    """Positions of the tiles with the most mixed truth (Gini-Simpson index times the scored share), from different scenes first."""
    mixed = np.zeros(len(tiles))
    for position in range(len(tiles)):
        counts = np.bincount(np.asarray(masks[position]).ravel(), minlength=256)[:IGNORE].astype(np.float64)
        if total := counts.sum():
            mixed[position] = (1 - ((counts / total) ** 2).sum()) * total / masks[position].size
    order = np.argsort(-mixed, kind="stable").tolist()
    first: dict[str, int] = {}
    for position in order:
        first.setdefault(tiles[position].scene, position)
    best = list(first.values())
    return [*best, *(position for position in order if position not in set(best))][:MOST]


def file_of(items: Path) -> Path:
    """Path of the examples next to a per-item table."""
    return items.with_suffix(".examples.npz")


def keep(items: Path, examples: Mapping[str, np.ndarray]) -> None:
    """Write examples next to their per-item table, if there are any."""
    if not examples:
        return
    with replacing(file_of(items)) as scratch, scratch.open("wb") as stream:
        np.savez_compressed(stream, names=np.array(list(examples)), masks=np.stack(list(examples.values())))


def kept(items: Path) -> dict[str, np.ndarray]:
    """What `keep` wrote; empty if nothing was written for this table."""
    if not file_of(items).exists():
        return {}
    with np.load(file_of(items), allow_pickle=False) as found:
        return dict(zip(found["names"].tolist(), found["masks"], strict=True))
