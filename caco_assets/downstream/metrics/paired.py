"""The gain of one encoder over another on the same images, with its paired bootstrap interval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.metrics.bootstrap import bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd


def paired_gain(
    a_items: pd.DataFrame | Path, b_items: pd.DataFrame | Path, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Gain of encoder a over encoder b on the same images.

    In accuracy if the tables hold predictions, in macro average precision if they hold scores of several labels.

    Args:
        a_items: per-item table (`image`, `label`, and `prediction` or `score`), or the parquet file of one.
        b_items: the other's.
        draws: number of resamples.
        seed: of the resampling.

    Returns:
        Figure of a minus figure of b, and the ends of its 95 % interval (paired bootstrap over images), all in [-1, 1].

    Raises:
        UserError: the two tables are not about the same images with the same labels.
    """
    a, b = _items(a_items), _items(b_items)
    if "group" in a and "group" in b:
        # torchmetrics and numba take seconds to import, and accuracies do not need them
        from caco_assets.downstream.metrics.confusion import paired_pixels

        return paired_pixels(a, b, draws, seed)
    both = a.merge(b, on="image", suffixes=("_a", "_b"), validate="one_to_one")
    if not len(both) == len(a) == len(b):
        raise UserError(
            f"paired test: {len(a)} and {len(b)} images, {len(both)} in common; score both encoders on the same data version"
        )
    labels = [np.stack(list(both[name])) for name in ("label_a", "label_b")]
    if (differing := _differing(*labels)) > 0:
        raise UserError(f"paired test: {differing} images have different labels; score both encoders on the same data version")
    if "score_a" in both and "score_b" in both:
        return _macro_gain(labels[0], both, draws, np.random.default_rng(seed))
    right_a = (both["prediction_a"] == both["label_a"]).to_numpy(np.float64)
    right_b = (both["prediction_b"] == both["label_b"]).to_numpy(np.float64)
    difference = right_a - right_b
    low, high = bootstrap_mean(difference, draws, np.random.default_rng(seed))
    return float(difference.mean()), low, high


def _differing(a: np.ndarray, b: np.ndarray) -> int:
    """Mask of images whose labels, (N,) or (N, K), differ."""
    if a.shape != b.shape:
        return len(a)
    return int(np.count_nonzero((a != b).reshape(len(a), -1).any(axis=1)))


def _macro_gain(labels: np.ndarray, both: pd.DataFrame, draws: int, rng: np.random.Generator) -> tuple[float, float, float]:
    from caco_assets.downstream.metrics import average_precision as ap

    a, b = (np.stack(list(both[name])) for name in ("score_a", "score_b"))
    values = ap.bootstrap([ap.weighted_macro(labels, a), ap.weighted_macro(labels, b)], len(labels), draws, rng)
    return ap.macro_ap(labels, a) - ap.macro_ap(labels, b), *ap.interval(values[:, 0] - values[:, 1])


def _items(source: pd.DataFrame | Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(source) if isinstance(source, Path) else source
