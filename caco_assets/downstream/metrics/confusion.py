"""Scores of per-pixel predictions from counts per tile: F1 and IoU for change, mean IoU for land cover.

A score covers all pixels of the test part; it is not a mean over tiles. The mean IoU is over the scored classes that are present
or predicted somewhere. F1 and IoU of change are 0 if no changed pixel is found or none exists (as in torchmetrics, whose
confusion matrix is used).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.image_decoding import IGNORE
from caco_assets.downstream.datasets.tiles import Tile
from caco_assets.downstream.metrics.bootstrap import LEVEL
from caco_assets.downstream.metrics.outcomes import Figure

if TYPE_CHECKING:
    import pandas as pd


_FEWEST = 5


def confusion(predictions: np.ndarray, masks: np.ndarray, classes: int) -> np.ndarray:
    """Counts (N, classes, classes) int64 of each tile: truth in rows, prediction in columns, without ignored pixels.

    Args:
        predictions: (N, H, W) integers below `classes`.
        masks: (N, H, W) uint8, class or `IGNORE`.
        classes: their number.
    """
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    pairs = zip(predictions, masks, strict=True)
    counts = [
        multiclass_confusion_matrix(
            torch.from_numpy(guess.astype(np.int64)), torch.from_numpy(truth.astype(np.int64)), classes, ignore_index=IGNORE
        ).numpy()
        for guess, truth in pairs
    ]
    return np.stack(counts) if counts else np.zeros((0, classes, classes), np.int64)


def overlaps(counts: np.ndarray, scored: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union (…, scored) of each scored class, from counts (…, classes, classes)."""
    both = np.diagonal(counts, axis1=-2, axis2=-1)[..., list(scored)]
    either = (counts.sum(axis=-1) + counts.sum(axis=-2))[..., list(scored)] - both
    return both, either


def f1(both: np.ndarray, either: np.ndarray) -> np.ndarray:
    """F1 (…) of the one scored class: 2·TP / (2·TP + FP + FN), with TP the intersection and TP + FP + FN the union."""
    return np.divide(2.0 * both, both + either, out=np.zeros(both.shape), where=either > 0)[..., 0]


def mean_iou(both: np.ndarray, either: np.ndarray) -> np.ndarray:
    """Mean IoU (…) over the scored classes with a union; 0 if none has one."""
    there = either > 0
    iou = np.divide(both, either, out=np.zeros(both.shape), where=there)
    return iou.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)


@dataclass(frozen=True)
class Pixels:
    """A class for each pixel of each tile, as counts."""

    tiles: tuple[Tile, ...]
    counts: np.ndarray
    """(N, classes, classes) int64: truth, prediction."""
    classes: tuple[str, ...]
    scored: tuple[int, ...]
    examples: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Tile name → (H, W) uint8 predictions, of a few example tiles."""

    @property
    def n(self) -> int:
        """Number of test tiles."""
        return len(self.tiles)

    def figures(self, draws: int, rng: np.random.Generator) -> list[Figure]:
        """`f1_change` and `iou_change`, or `miou`; intervals by a bootstrap over images (all tiles of a place together)."""
        groups = groups_of(self.tiles)
        both, either = grouped(groups, *overlaps(self.counts, self.scored))
        weights = resamples(len(both), draws, rng)
        drawn = weights @ both, weights @ either
        note = f"interval by a bootstrap over {len(both)} {'images' if len(both) < len(self.tiles) else 'tiles'}"
        total = both.sum(axis=0), either.sum(axis=0)
        if self.scored == (1,) and len(self.classes) == 2:
            figures = {"f1_change": f1, "iou_change": mean_iou}
        else:
            figures = {"miou": mean_iou}
            shares = np.divide(total[0], total[1], out=np.full(len(self.scored), np.nan), where=total[1] > 0)
            named = zip((self.classes[number] for number in self.scored), shares, strict=True)
            note += "; IoU " + ", ".join(f"{name} {'absent' if np.isnan(share) else f'{share:.3f}'}" for name, share in named)
        return [
            Figure(name, float(figure(*total)), *interval(figure(*drawn), float(figure(*total))), paired=not number, note=note)
            for number, (name, figure) in enumerate(figures.items())
        ]

    def table(self) -> Mapping[str, Any]:
        """`image` (the tile), `group`, intersection and union of each scored class, and the whole confusion."""
        both, either = overlaps(self.counts, self.scored)
        columns: dict[str, Any] = {"image": [tile.name for tile in self.tiles], "group": groups_of(self.tiles)}
        for position, number in enumerate(self.scored):
            columns[f"intersection_{number}"] = both[:, position]
            columns[f"union_{number}"] = either[:, position]
        size = len(self.classes)
        columns |= {f"truth_{i}_predicted_{j}": self.counts[:, i, j] for i in range(size) for j in range(size)}
        return columns


def groups_of(tiles: Sequence[Tile]) -> list[str]:
    """Bootstrap groups: tiles of one place, or single tiles if there are fewer than five places."""
    groups = [tile.group for tile in tiles]
    return groups if len(set(groups)) >= _FEWEST else [tile.name for tile in tiles]


def grouped(groups: Sequence[str], both: np.ndarray, either: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums (groups, scored) over the tiles of each group, in the groups' sorted order."""
    names, index = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sums = []
    for values in (both, either):
        total = np.zeros((len(names), values.shape[1]), np.int64)
        np.add.at(total, index, values)
        sums.append(total)
    return sums[0], sums[1]


def resamples(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, count) int64: how often each of `count` groups is drawn when `count` are drawn with replacement."""
    return rng.multinomial(count, np.full(count, 1 / count), size=draws)


def interval(values: np.ndarray, value: float) -> tuple[float, float]:
    """Percentile interval of resampled values, widened to include the value, which can lie outside if there are few groups."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return min(float(low), value), max(float(high), value)


def paired_pixels(a: pd.DataFrame, b: pd.DataFrame, draws: int, seed: int) -> tuple[float, float, float]:
    """Score of a (F1 of change, or mean IoU) minus that of b on the same tiles, and the ends of its 95 % interval.

    Both use the same resamples of images.

    Args:
        a: a per-item table of `Pixels`.
        b: the other's.
        draws: number of resamples.
        seed: of the resampling.

    Raises:
        UserError: the tables are not about the same tiles and classes.
    """
    a, b = (table.sort_values("image", ignore_index=True) for table in (a, b))
    numbers = [name.removeprefix("union_") for name in a.columns if name.startswith("union_")]
    if list(a.columns) != list(b.columns) or not a["image"].equals(b["image"]):
        raise UserError(
            f"paired test: {len(a)} and {len(b)} tiles that are not the same; score both encoders on the same data version"
        )
    figure = f1 if len(numbers) == 1 else mean_iou
    sums = []
    for table in (a, b):
        columns = ([f"{kind}_{number}" for number in numbers] for kind in ("intersection", "union"))
        sums.append(grouped(table["group"].tolist(), *(table[names].to_numpy() for names in columns)))
    gain = float(figure(*(each.sum(axis=0) for each in sums[0])) - figure(*(each.sum(axis=0) for each in sums[1])))
    weights = resamples(len(sums[0][0]), draws, np.random.default_rng(seed))
    drawn = [figure(weights @ both, weights @ either) for both, either in sums]
    return gain, *interval(drawn[0] - drawn[1], gain)
