"""Aligned seasons: the queries of a place's two periods show one season, so that the long-term distance compares like with like.

The published formula says so (both queries are taken at Δ1); the published code draws the seasons of the two periods independently.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.pretraining.views.view_plans import ViewPlan


def align(generator: np.random.Generator, plan: ViewPlan, valid: np.ndarray, slots: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """Give the query's date of both rows of each pair one season, drawn uniformly among those valid in both periods.

    Args:
        generator: the only source of randomness.
        plan: a paired one; its `views[0]` is the query.
        valid: bool (places, 2, seasons).
        slots: int64 (B,): 2 · place + period, the two periods of a place as neighbours.
        dates: int64 (B, plan.draw): period · seasons + season, as drawn without alignment.

    Returns:
        int64 (B, plan.draw). Without replacement a date that the query takes over is given its own in return, so that the dates
        of a sample stay different ones.
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
    """Stop where a place has no season in both periods.

    Raises:
        UserError: says how many places there are without one.
    """
    if without := int((~valid.all(axis=1).any(axis=1)).sum()):
        seasons = valid.shape[2]
        raise UserError(
            f"pretraining.aligned_seasons=true: {without} of {len(valid)} places of the pack {pack} have no season valid in both "
            f"periods; raise imagery.min_seasons to {seasons // 2 + 1} and build the pack again, or set it to false"
        )
