"""Accuracy of change maps and place scores where true change is known, with intervals over places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 1000
_BINS = 1024
"""Levels to which map values are rounded, by rank, for the average precision of resampled places."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval over resampled places."""

    value: float
    low: float
    high: float


def place_auroc(changed: NDArray[np.bool_], scores: Mapping[str, NDArray[np.floating]], seed: int) -> dict[str, Estimate]:
    """Area under the ROC curve of each set of place scores, and for each further set how much less it is than the first.

    Args:
        changed: (n,) true change.
        scores: name → (n,) scores; the same resampled places serve all, so that differences are paired.
        seed: of the resampling.

    Returns:
        name → AUROC, and `<first>-<name>` → the difference; empty if all places or none have changed.
    """
    from scipy.stats import rankdata

    if len(np.unique(changed)) < 2:
        return {}
    generator = np.random.default_rng(seed)
    # both classes keep their numbers: AUROC is defined in every resample
    parts = [np.flatnonzero(changed), np.flatnonzero(~changed)]
    picks = [np.arange(len(changed))]
    picks += [np.concatenate([generator.choice(part, len(part)) for part in parts]) for _ in range(_RESAMPLES)]

    def auroc(values: NDArray[np.floating], pick: NDArray[np.integer]) -> float:
        truth = changed[pick]
        positive = int(truth.sum())
        ranks = rankdata(values[pick])[truth].sum()
        return float((ranks - positive * (positive + 1) / 2) / (positive * (len(pick) - positive)))

    drawn = {name: np.array([auroc(np.asarray(values), pick) for pick in picks]) for name, values in scores.items()}
    return _with_differences(drawn)


def cell_average_precision(
    masks: Sequence[NDArray[np.bool_]], maps: Mapping[str, Sequence[NDArray[np.floating]]], seed: int
) -> dict[str, Estimate]:
    """Average precision of the cells of all places, resampled by place; values are rounded to 1024 levels by rank.

    Args:
        masks: of each place, (h, w).
        maps: name → map of each place, (h, w) as its mask.
        seed: of the resampling.

    Returns:
        As `place_auroc`; empty if no cell has changed.
    """
    if not any(mask.any() for mask in masks):
        return {}
    generator = np.random.default_rng(seed)
    count = len(masks)
    draws = [np.bincount(generator.integers(0, count, count), minlength=count) for _ in range(_RESAMPLES)]
    weights = np.stack([np.ones(count), *draws])  # (1 + resamples, places)
    drawn: dict[str, NDArray[np.floating]] = {}
    for name, values in maps.items():
        edges = np.unique(np.quantile(np.concatenate([cells.ravel() for cells in values]), np.linspace(0, 1, _BINS)))
        levels = [np.searchsorted(edges, cells.ravel()) for cells in values]
        hits, all_cells = (np.zeros((len(masks), len(edges) + 1)) for _ in range(2))
        for place, (level, mask) in enumerate(zip(levels, masks, strict=True)):
            hits[place] = np.bincount(level, mask.ravel(), len(edges) + 1)
            all_cells[place] = np.bincount(level, minlength=len(edges) + 1)
        # from the highest level downwards: recall steps weighted by precision
        right, chosen = (np.cumsum((weights @ counts)[:, ::-1], axis=1) for counts in (hits, all_cells))
        recall = right / np.maximum(right[:, -1:], 1)
        steps = np.diff(recall, axis=1, prepend=0)
        drawn[name] = (steps * right / np.maximum(chosen, 1)).sum(1)
    return _with_differences(drawn)


def cell_f1(masks: Sequence[NDArray[np.bool_]], maps: Sequence[NDArray[np.floating]], threshold: float) -> float:
    """F1 of all cells when those above the threshold are called changed; 0 if nothing is right."""
    called = [cells > threshold for cells in maps]
    right = sum(int((call & mask).sum()) for call, mask in zip(called, masks, strict=True))
    return 2 * right / max(sum(int(part.sum()) for part in (*called, *masks)), 1)


def _with_differences(drawn: Mapping[str, NDArray[np.floating]]) -> dict[str, Estimate]:
    """Name → estimate, and `<first>-<name>` → the difference from the first; the same resamples serve all."""
    first, *others = drawn
    differences = {f"{first}-{name}": _estimate(drawn[first] - drawn[name]) for name in others}
    return {name: _estimate(values) for name, values in drawn.items()} | differences


def _estimate(drawn: NDArray[np.floating]) -> Estimate:
    low, high = np.quantile(drawn[1:], (0.025, 0.975))
    return Estimate(float(drawn[0]), float(low), float(high))
