"""Accuracy, and the bootstrap interval of a mean."""

from __future__ import annotations

import numpy as np

LEVEL = 0.95
"""Confidence level of every interval."""


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of correct predictions, in [0, 1]; (N,) against (N,)."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def bootstrap_mean(values: np.ndarray, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of per-item values.

    Drawing N of N items with replacement draws the counts of the distinct values from a multinomial, so all draws are made at
    once from the counts (Efron and Tibshirani 1993, section 6.2); with two or three distinct values that is a few numbers.

    Args:
        values: (N,) one figure per item.
        draws: number of resamples.
        rng: random generator.

    Returns:
        Lower and upper end at `LEVEL`.
    """
    distinct, counts = np.unique(values, return_counts=True)
    means = rng.multinomial(len(values), counts / len(values), size=draws) @ distinct / len(values)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
