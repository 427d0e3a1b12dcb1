"""Compares the darkest targets of the two periods, which must agree if their radiometry does.

The darkest pixels of a place (water, shadow, conifers) hardly change in years. An offset of the processing baseline that was not
taken off in one period, or taken off twice, moves them by 1000 in every band, everywhere; change of the land moves some places.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 1.0
"""Of a band's valid pixels: the darkest hundredth ignores single defective pixels."""
SYSTEMATIC = 300.0
"""From this shift on it is no change of the land. Measured between the periods of real places (25 around Boadella): at most 96 in
any band, of the embedded Earth (100 places): at most 24; a forgotten offset is 1000."""

Key = tuple[str, int, int]
"""Place, period, season."""


def dark_level(pixels: NDArray[np.uint16]) -> NDArray[np.float64]:
    """The dark level of each band, (bands,), of a chip (bands, H, W) in which 0 is no data; NaN where a band has no pixel."""
    return np.array([np.percentile(band[band > 0], PERCENTILE) if (band > 0).any() else np.nan for band in pixels], np.float64)


def dark_shift(levels: Mapping[Key, NDArray[np.float64]]) -> tuple[NDArray[np.float64], int]:
    """How far the dark targets of the late period are above those of the early one, as archive numbers.

    Seasons are compared with themselves, because the sun is lower in winter and leaves fall: the median over the seasons of a
    place, then over the places, so that neither a changed place nor a hazy date counts.

    Args:
        levels: dark level (bands,) of each chip.

    Returns:
        (bands,), NaN where nothing can be compared, and the number of places compared; an empty array when there are none.
    """
    pairs: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for (place, period, season), level in levels.items():
        if period == 1 and (place, 0, season) in levels:
            pairs[place].append(level - levels[place, 0, season])
    if not pairs:
        return np.empty(0), 0
    return _middle(np.array([_middle(np.array(differences)) for differences in pairs.values()])), len(pairs)


def _middle(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median over rows (n, bands), ignoring NaN."""
    known = ~np.isnan(rows)
    return np.array([np.median(column[seen]) if seen.any() else np.nan for column, seen in zip(rows.T, known.T, strict=True)])
