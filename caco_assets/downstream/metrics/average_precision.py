"""Average precision of multi-label scores, micro and macro, with a bootstrap over images.

The figures are scikit-learn's (`average_precision_score`: Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct scores, no interpolation). Values
under resampling are computed by a compiled loop over scores that are sorted once; a test compares every draw with scikit-learn's
`sample_weight`.

Rules:
* `macro_ap` is the mean over the classes that have a positive image; a class without one has no average precision and is left out,
  which the note says (torchmetrics does the same, scikit-learn would count it as 0). In a resample: those with a positive in it.
* `micro_ap` ranks all images × classes as one list; a class without positives takes part with its negatives.
* `micro_ap_batch` is what published tables on BigEarthNet call mAP: the mean, over consecutive batches, of each batch's micro
average precision. It depends on the batch size and the order and serves only for comparison with those tables.
"""

# ruff: noqa: ANN001, ANN202 - numba infers the types of compiled functions

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit

from caco_assets.core.errors import UserError
from caco_assets.downstream.metrics.bootstrap import LEVEL


def with_positives(labels: np.ndarray) -> np.ndarray:
    """Indices of the classes that (N, K) labels have a positive of."""
    return np.flatnonzero(labels.any(axis=0))


def macro_ap(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean average precision over the classes with a positive; labels and scores (N, K).

    Raises:
        UserError: no class has any.
    """
    from sklearn.metrics import average_precision_score

    known = with_positives(labels)
    if not len(known):
        raise UserError("average precision: no image has any label; use other split lists")
    return float(average_precision_score(labels[:, known], scores[:, known], average="macro"))


def micro_ap(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision of all (N, K) scores as one list.

    Raises:
        UserError: no image has any label.
    """
    from sklearn.metrics import average_precision_score

    if not labels.any():
        raise UserError("average precision: no image has any label; use other split lists")
    return float(average_precision_score(labels, scores, average="micro"))


def batches(count: int, size: int) -> list[slice]:
    """Consecutive whole batches; a last one that is not full is dropped unless it is the only one, as the reference does."""
    whole = [slice(start, start + size) for start in range(0, count - size + 1, size)]
    return whole or [slice(0, count)]


def micro_ap_batch(labels: np.ndarray, scores: np.ndarray, size: int) -> float:
    """Mean over consecutive batches of `size` images of their micro average precision."""
    return float(np.mean([micro_ap(labels[batch], scores[batch]) for batch in batches(len(labels), size)]))


class Ranking:
    """Scores sorted once, so that average precision under any weights of the images is one pass over them."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """(n,) or (N, K) labels and scores; in the second case an entry's image is its row."""
        flat, truth = scores.reshape(-1), labels.reshape(-1)
        order = np.argsort(-flat, kind="stable")
        ranked = flat[order]
        self._truth = truth[order].astype(np.uint8)
        self._image = (order // (scores.shape[1] if scores.ndim == 2 else 1)).astype(np.int32)
        # the last entry of each run of equal scores: only there is a threshold
        self._ends = np.append(ranked[1:] != ranked[:-1], True)

    def weighted(self, weights: np.ndarray) -> float:
        """Average precision with images counted (N,) `weights` times (int64); NaN where no positive has weight."""
        return _average_precision(self._truth, self._image, self._ends, weights)


Statistic = Callable[[np.ndarray], float]
"""A figure as a function of how often each image counts, int64 (N,)."""


def weighted_macro(labels: np.ndarray, scores: np.ndarray) -> Statistic:
    """`macro_ap` of (N, K) labels and scores under weights; over the classes with a positive that has weight."""
    rankings = [Ranking(labels[:, k], scores[:, k]) for k in with_positives(labels)]
    return lambda weights: float(np.nanmean([ranking.weighted(weights) for ranking in rankings]))


def weighted_micro(labels: np.ndarray, scores: np.ndarray) -> Statistic:
    """`micro_ap` of (N, K) labels and scores under weights."""
    return Ranking(labels, scores).weighted


def weighted_micro_batch(labels: np.ndarray, scores: np.ndarray, size: int) -> Statistic:
    """`micro_ap_batch` of (N, K) labels and scores under weights that count images inside their batch."""
    parts = [(batch, Ranking(labels[batch], scores[batch])) for batch in batches(len(labels), size)]
    return lambda weights: float(np.nanmean([ranking.weighted(weights[batch]) for batch, ranking in parts]))


def bootstrap(
    statistics: Sequence[Statistic], count: int, draws: int, rng: np.random.Generator, strata: Sequence[slice] = ()
) -> np.ndarray:
    """Values of statistics of the same images under resampling of the images with replacement.

    Args:
        statistics: the figures.
        count: number of images N.
        draws: number of resamples.
        rng: random generator.
        strata: images are drawn inside each of these; none: among all.

    Returns:
        (draws, statistics) float64.
    """
    values = np.empty((draws, len(statistics)))
    for draw in range(draws):
        weights = np.zeros(count, np.int64)
        for stratum in strata or (slice(0, count),):
            size = stratum.stop - stratum.start
            weights[stratum] = np.bincount(rng.integers(0, size, size), minlength=size)
        values[draw] = [statistic(weights) for statistic in statistics]
    return values


def interval(values: np.ndarray) -> tuple[float, float]:
    """Ends of the percentile interval at `LEVEL`; resamples without any positive are ignored."""
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


@njit(nogil=True, cache=True)
def _average_precision(truth, image, ends, weights):
    positives = 0
    for j in range(truth.size):
        if truth[j]:
            positives += weights[image[j]]
    if positives == 0:
        return np.nan
    hits, seen, hits_before, total = 0, 0, 0, 0.0
    for j in range(truth.size):
        weight = weights[image[j]]
        seen += weight
        if truth[j]:
            hits += weight
        if ends[j] and hits > hits_before:
            total += (hits - hits_before) * (hits / seen)
            hits_before = hits
    return total / positives
