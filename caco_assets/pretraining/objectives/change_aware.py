"""Shared code of the change-aware objectives: distances in one space, moving averages, labels, and excluded negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from caco_assets.pretraining.change.estimate import ChangeState
from caco_assets.pretraining.objectives.base import EpochReport, Objective, StepOutput
from caco_assets.pretraining.objectives.config import ObjectiveConfig

CHANGE_SPACE = 1
"""The space whose positive is another season, unaugmented: the one that is invariant to seasons only."""
# keeps the ratio finite where two seasons look the same
_EPSILON = 1e-4


class ChangeAware(Objective):
    """Mixin for objectives with paired batches; the objective calls `watch` in its `__init__`.

    ratio = lt / (st + 1e-4),   lt = ‖l(early) − l(late)‖,   st = ‖l(q) − l(k₁)‖,   r ← β·r + (1 − β)·ratio
    """

    change: ChangeState

    def watch(self, config: ObjectiveConfig) -> None:
        """Create the change estimate."""
        self.change = ChangeState(config.slots, beta=config.ema_beta, kind=config.change_estimate)

    def long_and_short(self, query: Tensor, late_key: Tensor) -> Tensor:
        """(2, n): long-term distance (shared by the pair) and short-term distance of unit vectors (n, C) in the change space."""
        short = torch.linalg.vector_norm(query - late_key, dim=1)
        long = torch.linalg.vector_norm(query[0::2] - query[1::2], dim=1).repeat_interleave(2)
        both = torch.stack([long, short])
        return both.square() if self.config.switches.squared_distances else both

    def absorb(self, output: StepOutput) -> None:
        """Add the distances to the moving averages, after the objective's own update."""
        super().absorb(output)
        assert output.distances is not None  # noqa: S101 - forward of these classes always sets it
        long, short = output.distances
        self.change.update(output.slots, long, short, long / (short + _EPSILON))

    def end_epoch(self, seed: int) -> EpochReport:
        """Relabel every slot; the labels apply from the next epoch on."""
        switches = self.config.switches
        self.change.relabel(seed=seed if switches.seeded_mixture else None, monotone=switches.monotone_threshold)
        return EpochReport(self.change.summary())

    def unchanged(self, slots: Tensor) -> Tensor:
        """Boolean (N,): rows whose own place in the other period is not a negative, by the row's own label."""
        label = self.change.label[slots]
        return label <= 0 if self.config.switches.unseen_is_unchanged else label == 0
