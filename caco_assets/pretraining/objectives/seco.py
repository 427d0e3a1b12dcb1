"""SeCo (Mañas et al. 2021): three embedding spaces with different invariances.

Query t0; keys aug(t1), t2, aug(t0). Space 0 is invariant to season and augmentation (positive aug(t1)), space 1 to season
only (t2), and space 2 to augmentation only (aug(t0)); in spaces 1 and 2 the other key views are negatives too.

    L = Σᵢ −log( exp(qᵢ·kᵢᵢ/τ) / (exp(qᵢ·kᵢᵢ/τ) + Σ_{k ∈ queueᵢ} exp(qᵢ·k/τ) + [i > 0] Σ_{j ≠ i} Σₙ exp(qᵢ·kᵢⱼₙ/τ)) )

kᵢⱼₙ is view j of sample n of the batch under head i.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caco_assets.pretraining.distributed import mine
from caco_assets.pretraining.objectives.momentum_contrast import Contrastive
from caco_assets.pretraining.views.view_plans import PLANS


class Seco(Contrastive):
    """Negatives: the whole queue, and in spaces 1 and 2 all keys of the other two views."""

    plan = PLANS["seco"]
    spaces = 3

    def similarities(self, space: int, query: Tensor, keys: Tensor, slots: Tensor) -> Tensor:  # noqa: ARG002
        """Logits (n, 1 + K [+ 2N]): positive, queue, other views."""
        query = mine(query)
        positive = (query * mine(keys[space])).sum(dim=1, keepdim=True)  # (n, 1)
        blocks = [positive, query @ self.negatives(space), *self.other_views(space, query, keys)]
        return torch.cat(blocks, dim=1) / self.config.temperature

    def other_views(self, space: int, query: Tensor, keys: Tensor) -> list[Tensor]:
        """Similarities (n, N) to every key of each other view; none in space 0, which is invariant to all their differences."""
        return [query @ keys[j].T for j in range(len(keys)) if j != space] if space > 0 else []
