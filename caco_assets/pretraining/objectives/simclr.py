"""SimCLR (Chen et al. 2020): one encoder embeds all views, and the negatives are the other images of the batch.

NT-Xent of one space, over the 2N vectors z = (queries, keys) of its two views:

    L = −1/2N Σₐ log( exp(zₐ·z₊/τ) / (Σ_{b ≠ a} exp(zₐ·z_b/τ) + Σ_{k ∈ others} exp(zₐ·k/τ)) )

z₊ is the other view of a's sample. There is no queue and no momentum encoder, so a batch must be large. With many processes the
vectors of all are gathered; each process computes the loss of its own anchors, with gradient to the vectors of all processes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from caco_assets.pretraining.distributed import mine
from caco_assets.pretraining.objectives.base import Objective
from caco_assets.pretraining.views.view_plans import PLANS


class SimClr(Objective):
    """Two augmented views of one date attract. Base of the SimCLR objectives: one encoder embeds every view."""

    plan = PLANS["moco"]
    spaces = 1
    everyones_gradient = True

    def embed_keys(self, images: list[Tensor]) -> Tensor:
        """(E, V-1, n, C)."""
        # one pass per view, as in momentum contrast: batch-norm statistics do not mix views
        seen = [self.encoder_q(image) for image in images]
        return torch.stack([torch.stack([F.normalize(head(f).float(), dim=1) for f in seen]) for head in self.heads_q])

    def similarities(self, space: int, query: Tensor, keys: Tensor, slots: Tensor) -> Tensor:
        """Logits (2n, 1 + 2N [+ 2N]), anchors: own queries, then own keys. Positive, the batch (masked: −inf), other views."""
        vectors = torch.cat([query, keys[space]])  # (2N, C)
        anchors = mine(vectors.unflatten(0, (2, -1)), 1).flatten(0, 1)  # (2n, C)
        positive = (mine(query) * mine(keys[space])).sum(dim=1, keepdim=True).repeat(2, 1)  # (2n, 1)
        samples = torch.arange(len(query), device=query.device)
        # the anchor itself, and its positive, which is in column 0
        masked = (mine(samples)[:, None] == samples) | mine(self.left_out(slots))  # (n, N)
        batch = (anchors @ vectors.T).masked_fill(masked.repeat(2, 2), -torch.inf)
        return torch.cat([positive, batch, *self.other_views(space, anchors, keys)], dim=1) / self.config.temperature

    def left_out(self, slots: Tensor) -> Tensor:
        """Boolean (N, N): samples of the batch (columns) that are not negatives of a sample (rows), besides itself."""
        return torch.zeros(len(slots), len(slots), dtype=torch.bool, device=slots.device)

    def other_views(self, space: int, anchors: Tensor, keys: Tensor) -> list[Tensor]:  # noqa: ARG002 - see simclr_seco
        """Similarities (2n, N) to further negatives."""
        return []
