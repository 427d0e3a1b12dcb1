"""CACo (Mall et al., CVPR 2023): a place years apart is a negative of itself only where it has really changed.

    L = Σᵢ −log( exp(qᵢ·kᵢᵢ/τ) / Σ_{k ∈ negatives ∪ {kᵢᵢ}} exp(qᵢ·k/τ) )
    ratio = lt / (st + 1e-4),   lt = ‖l(early) − l(late)‖,   st = ‖l(q) − l(k₁)‖,   r ← β·r + (1 − β)·ratio

l is the key encoder under head 1; seasons are drawn independently in both periods. The negatives are `teco`'s, but in all three
spaces the row's own place in the other period is left out where its label says "unchanged". Labels come from a mixture of two
Gaussians on r at the end of each epoch (`pretraining/change.py`) and are all "unchanged" in the first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caco_assets.pretraining.change import ChangeState
from caco_assets.pretraining.objectives.config import ObjectiveConfig
from caco_assets.pretraining.objectives.contrastive import EpochReport, StepOutput
from caco_assets.pretraining.objectives.teco import Teco, early_first
from caco_assets.pretraining.views import PLANS

# the space whose positive is another season, unaugmented: the one that ignores seasons alone
_CHANGE_SPACE = 1
# keeps the ratio finite where two seasons look the same
_EPSILON = 1e-4


class Caco(Teco):
    """`teco` with a change estimate per place and period, and a mask on the cross block's diagonals."""

    plan = PLANS["caco"]

    def __init__(self, config: ObjectiveConfig, backbone: nn.Module, features: int) -> None:
        """See `Contrastive`."""
        super().__init__(config, backbone, features)
        # without memory the "moving average" is the last estimate, which is what the other two estimates are
        beta = config.ema_beta if config.change_estimate == "ema_ratio" else 0.0
        self.change = ChangeState(config.slots, beta=beta, by_ratio=config.change_estimate != "distance")

    def similarities(self, space: int, query: Tensor, keys: Tensor, slots: Tensor) -> Tensor:
        """Logits (N, 1 + K/2 [+ 2N] + N/2), early rows first: positive, queue, other views, cross (masked: −inf)."""
        positive, queue = self.own_period(space, query, keys[space])
        cross = self.cross(query, keys[space]).masked_fill(self._unchanged_own_place(slots), -torch.inf)
        others = self.other_views(space, early_first(query), keys)
        return torch.cat([positive, queue, *others, cross], dim=1) / self.config.temperature

    def distances(self, query_image: Tensor, keys: Tensor) -> Tensor:
        """Long-term (shared by the pair) and short-term distance (2, N) in the change space."""
        late_key = keys[_CHANGE_SPACE, 1]  # view t2 under head 1: (N, C), already there
        query = self.embed_key(_CHANGE_SPACE, self.encoder_k(query_image))
        short = torch.linalg.vector_norm(query - late_key, dim=1)
        long = torch.linalg.vector_norm(query[0::2] - query[1::2], dim=1).repeat_interleave(2)
        both = torch.stack([long, short])
        return both.square() if self.config.switches.squared_distances else both

    def absorb(self, output: StepOutput) -> None:
        """Queue, then the moving averages."""
        super().absorb(output)
        assert output.distances is not None  # noqa: S101 - forward of this class always sets it
        long, short = output.distances
        self.change.update(output.slots, long, short, long / (short + _EPSILON))

    def end_epoch(self, seed: int) -> EpochReport:
        """Label every slot anew; the labels act from the next epoch on."""
        switches = self.config.switches
        self.change.relabel(seed=seed if switches.seeded_mixture else None, monotone=switches.monotone_threshold)
        return EpochReport(self.change.summary())

    def _unchanged_own_place(self, slots: Tensor) -> Tensor:
        """Boolean (N, N/2), early rows first: each row's own place, where its own label says unchanged."""
        label = early_first(self.change.label[slots])
        unchanged = label <= 0 if self.config.switches.unseen_is_unchanged else label == 0
        own_place = torch.eye(len(slots) // 2, dtype=torch.bool, device=slots.device).repeat(2, 1)
        return own_place & unchanged[:, None]
