"""Aligned seasons: the queries of a place's two periods show the same season, so that the long-term distance ignores seasons.

The published formula requires it (both queries are taken at Δ1); the published code draws the two seasons independently.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.pretraining.views.view_plans import ViewPlan


def align(generator: np.random.Generator, plan: ViewPlan, valid: np.ndarray, slots: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """Give the queries of both rows of each pair the same season, drawn uniformly among those valid in both periods.

    Args:
        generator: the only source of randomness.
        plan: a paired plan; its `views[0]` is the query.
        valid: bool (places, 2, seasons).
        slots: int64 (B,): 2 · place + period, the two periods of a place as neighbours.
        dates: int64 (B, plan.draw): period · seasons + season, as drawn without alignment.

    Returns:
        int64 (B, plan.draw). Without replacement, if another view of the sample already has the query's new date, the two swap
        dates, so that the dates of a sample stay distinct.
    """
    place, period = np.divmod(slots, 2)
    common = valid[place[0::2]].all(axis=1)  # (B/2, seasons)
    season = np.where(common, generator.random(common.shape), -1.0).argmax(axis=1)
    wanted = period * valid.shape[2] + np.repeat(season, 2)  # (B,)
    aligned, query = dates.copy(), plan.views[0].date
    if not plan.replace:
        aligned = np.where(dates == wanted[:, None], dates[:, query, None], dates)
    aligned[:, query] = wanted
    return aligned


def check_common_seasons(pack: Path, valid: np.ndarray) -> None:
    """Check that every place has a season in both periods.

    Raises:
        UserError: states the number of places without one.
    """
    if without := int((~valid.all(axis=1).any(axis=1)).sum()):
        seasons = valid.shape[2]
        raise UserError(
            f"pretraining.aligned_seasons=true: {without} of {len(valid)} places of the pack {pack} have no season valid in both "
            f"periods; raise imagery.min_seasons to {seasons // 2 + 1} and build the pack again, or set it to false"
        )
