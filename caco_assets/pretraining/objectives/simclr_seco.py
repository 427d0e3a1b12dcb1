"""SeCo's three spaces in the SimCLR framework (a row of the CACo study, Mall et al. 2023): no queue, no momentum encoder.

Views and spaces are SeCo's; each space has the NT-Xent loss of `simclr.py`, and in spaces 1 and 2 the keys of the other two views
are negatives too. The study gives no code for this row; unspecified details follow `seco`.
"""

from __future__ import annotations

from torch import Tensor

from caco_assets.pretraining.objectives.simclr import SimClr
from caco_assets.pretraining.views.view_plans import PLANS


class SimClrSeco(SimClr):
    """Negatives: the batch, and in spaces 1 and 2 all keys of the other two views."""

    plan = PLANS["seco"]
    spaces = 3

    def other_views(self, space: int, anchors: Tensor, keys: Tensor) -> list[Tensor]:
        """Similarities (2n, N) to every key of each other view; none in space 0, as in `seco`."""
        return [anchors @ keys[j].T for j in range(len(keys)) if j != space] if space > 0 else []
