"""MoCo v2 (Chen et al. 2020): two augmented views of one image attract, the queue repels.

L = −log( exp(q·k⁺/τ) / (exp(q·k⁺/τ) + Σ_{k ∈ queue} exp(q·k/τ)) )
"""

from __future__ import annotations

import torch
from torch import Tensor

from caco_assets.pretraining.distributed import mine
from caco_assets.pretraining.objectives.momentum_contrast import Contrastive
from caco_assets.pretraining.views.view_plans import PLANS


class MocoV2(Contrastive):
    """One embedding space, one key view; negatives are the whole queue."""

    plan = PLANS["moco"]
    spaces = 1

    def similarities(self, space: int, query: Tensor, keys: Tensor, slots: Tensor) -> Tensor:  # noqa: ARG002
        """Logits (n, 1 + K): positive, queue."""
        query = mine(query)
        positive = (query * mine(keys[0])).sum(dim=1, keepdim=True)  # (n, 1)
        return torch.cat([positive, query @ self.negatives(space)], dim=1) / self.config.temperature
