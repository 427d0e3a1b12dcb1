"""Figures with their uncertainty: accuracy, its bootstrap interval, and the paired gain of one encoder over another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caco_assets.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
"""Of every interval."""


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of right answers, in [0, 1]; (N,) against (N,)."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def bootstrap_mean(values: np.ndarray, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of per-item values.

    Drawing N of N items with replacement draws the counts of the distinct values from a multinomial, so all draws are made at
    once from the counts (Efron and Tibshirani 1993, section 6.2); with two or three distinct values that is a few numbers.

    Args:
        values: (N,) one figure per item.
        draws: number of resamples.
        rng: where chance comes from.

    Returns:
        Lower and upper end at `LEVEL`.
    """
    distinct, counts = np.unique(values, return_counts=True)
    means = rng.multinomial(len(values), counts / len(values), size=draws) @ distinct / len(values)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def paired_gain(
    a_items: pd.DataFrame | Path, b_items: pd.DataFrame | Path, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """By how much encoder a is more accurate than encoder b on the very same images.

    Args:
        a_items: per-item table (`image`, `label`, `prediction`), or the parquet file of one.
        b_items: the other's.
        draws: number of resamples.
        seed: of the resampling.

    Returns:
        Accuracy of a minus accuracy of b, and the ends of its 95 % interval (paired bootstrap over images), all in [-1, 1].

    Raises:
        UserError: the two tables are not about the same images with the same labels.
    """
    a, b = _items(a_items), _items(b_items)
    both = a.merge(b, on="image", suffixes=("_a", "_b"), validate="one_to_one")
    if not len(both) == len(a) == len(b):
        raise UserError(
            f"paired test: {len(a)} and {len(b)} images, {len(both)} in common; score both encoders on the same data version"
        )
    if (differing := np.count_nonzero(both["label_a"].to_numpy() != both["label_b"].to_numpy())) > 0:
        raise UserError(f"paired test: {differing} images have different labels; score both encoders on the same data version")
    right_a = (both["prediction_a"] == both["label_a"]).to_numpy(np.float64)
    right_b = (both["prediction_b"] == both["label_b"]).to_numpy(np.float64)
    difference = right_a - right_b
    low, high = bootstrap_mean(difference, draws, np.random.default_rng(seed))
    return float(difference.mean()), low, high


def _items(source: pd.DataFrame | Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(source) if isinstance(source, Path) else source
