"""CACo (Mall et al., CVPR 2023): a place years apart is a negative of itself only where it has really changed.

    L = Σᵢ −log( exp(qᵢ·kᵢᵢ/τ) / Σ_{k ∈ negatives ∪ {kᵢᵢ}} exp(qᵢ·k/τ) )
    ratio = lt / (st + 1e-4),   lt = ‖l(early) − l(late)‖,   st = ‖l(q) − l(k₁)‖,   r ← β·r + (1 − β)·ratio

l is the key encoder under head 1; seasons are drawn independently in both periods. The negatives are those of `teco`, except
that in all three spaces a row's own place in the other period is left out if its label is "unchanged". Labels come from a mixture
of two Gaussians on r at the end of each epoch (`change/estimate.py`); in the first epoch all are "unchanged".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caco_assets.pretraining.distributed import mine
from caco_assets.pretraining.objectives.change_aware import CHANGE_SPACE, ChangeAware
from caco_assets.pretraining.objectives.config import ObjectiveConfig
from caco_assets.pretraining.objectives.teco import Teco, early_first
from caco_assets.pretraining.views.view_plans import PLANS


class Caco(ChangeAware, Teco):
    """`teco` with a change estimate per place and period, and a mask on the cross block's diagonals."""

    plan = PLANS["caco"]

    def __init__(self, config: ObjectiveConfig, backbone: nn.Module, features: int) -> None:
        """See `Contrastive`."""
        super().__init__(config, backbone, features)
        self.watch(config)

    def similarities(self, space: int, query: Tensor, keys: Tensor, slots: Tensor) -> Tensor:
        """Logits (n, 1 + K/2 [+ 2N] + N/2), early rows first: positive, queue, other views, cross (masked: −inf)."""
        query = mine(query)
        positive, queue = self.own_period(space, query, mine(keys[space]))
        cross = self.cross(query, keys[space]).masked_fill(self._unchanged_own_place(slots), -torch.inf)
        others = self.other_views(space, early_first(query), keys)
        return torch.cat([positive, queue, *others, cross], dim=1) / self.config.temperature

    def distances(self, query_image: Tensor, queries: Tensor, keys: Tensor) -> Tensor:  # noqa: ARG002 - the key encoder's own view
        """(2, n) in the change space of the key encoder, which has already embedded t2."""
        return self.long_and_short(self.embed_key(CHANGE_SPACE, self.encoder_k(query_image)), keys[CHANGE_SPACE, 1])

    def _unchanged_own_place(self, slots: Tensor) -> Tensor:
        """Boolean (n, N/2), early rows first: each row's own place, if the row's label is "unchanged"."""
        own_place = mine(torch.eye(len(slots) // 2, dtype=torch.bool, device=slots.device)).repeat(2, 1)
        return own_place & early_first(self.unchanged(mine(slots)))[:, None]
