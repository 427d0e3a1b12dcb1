"""CACo in the SimCLR framework (a row of the CACo study, Mall et al. 2023): the batch holds both periods of each place.

As `simclr_seco`, with dates drawn inside one period. A place years apart is a negative of itself only if the anchor's label is
"changed"; the labels come from the same change estimate as in `caco`, computed with the only encoder.
"""

from __future__ import annotations

from torch import Tensor, nn

from caco_assets.pretraining.objectives.change_aware import CHANGE_SPACE, ChangeAware
from caco_assets.pretraining.objectives.config import ObjectiveConfig
from caco_assets.pretraining.objectives.simclr_seco import SimClrSeco
from caco_assets.pretraining.views.view_plans import PLANS


class SimClrCaco(ChangeAware, SimClrSeco):
    """`simclr_seco` on pairs of periods, with a change estimate."""

    plan = PLANS["caco"]

    def __init__(self, config: ObjectiveConfig, backbone: nn.Module, features: int) -> None:
        """See `Objective`."""
        super().__init__(config, backbone, features)
        self.watch(config)

    def left_out(self, slots: Tensor) -> Tensor:
        """Boolean (N, N): the own place in the other period, if the row's label is "unchanged"."""
        place = slots // 2
        own_place = (place[:, None] == place[None, :]) & (slots[:, None] != slots[None, :])
        return own_place & self.unchanged(slots)[:, None]

    def distances(self, query_image: Tensor, queries: Tensor, keys: Tensor) -> Tensor:  # noqa: ARG002 - the query is embedded already
        """(2, n) in the change space."""
        return self.long_and_short(queries[CHANGE_SPACE], keys[CHANGE_SPACE, 1]).detach()
