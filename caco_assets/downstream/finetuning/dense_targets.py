"""The two targets of dense tasks (change and classes): meaning of the outputs, loss, and validation score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from caco_assets.downstream.datasets.image_decoding import IGNORE
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.downstream.metrics.confusion import confusion, f1, mean_iou, overlaps

HALF = 0.5
_BINS = 100
_THRESHOLDS = np.arange(5, 100, 5)
"""Candidate thresholds of validation, in hundredths."""


class DenseTarget(Protocol):
    """What a decoder is trained for."""

    @property
    def outputs(self) -> int:
        """Channels of the decoder."""
        ...

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Mean over the pixels that count, of logits (B, outputs, H, W) and masks (B, H, W) uint8."""
        ...

    def answers(self, logits: Tensor, threshold: float) -> np.ndarray:
        """(B, H, W) uint8 classes."""
        ...

    def counts_for_validation(self, logits: Tensor, masks: np.ndarray) -> np.ndarray:
        """Counts that are summed over batches, as input of `validation_score`."""
        ...

    def validation_score(self, counts: np.ndarray) -> tuple[float, float]:
        """The score in [0, 1], and its threshold."""
        ...


@dataclass(frozen=True)
class Change:
    """One logit for each pixel: has it changed? Binary cross-entropy; F1 picks epoch and threshold."""

    outputs: int = 1

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Binary cross-entropy."""
        counts = masks != IGNORE
        each = F.binary_cross_entropy_with_logits(logits[:, 0], (masks == 1).float(), reduction="none")
        return (each * counts).sum() / counts.sum().clamp(min=1)

    def answers(self, logits: Tensor, threshold: float) -> np.ndarray:
        """1 where the probability is at least the threshold."""
        return (logits[:, 0].sigmoid() >= threshold).to(torch.uint8).cpu().numpy()

    def counts_for_validation(self, logits: Tensor, masks: np.ndarray) -> np.ndarray:
        """(2, 100) histogram of probabilities, of unchanged and of changed pixels."""
        bins = (logits[:, 0].sigmoid() * _BINS).long().clamp(max=_BINS - 1).cpu().numpy()
        return np.stack([np.bincount(bins[masks == truth], minlength=_BINS) for truth in (0, 1)])

    def validation_score(self, counts: np.ndarray) -> tuple[float, float]:
        """The best F1 and its threshold; ties go to the one nearest 0.5."""
        above = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, _THRESHOLDS]  # (2, thresholds): counted as changed
        both, either = above[1], counts[1].sum() + above[0]
        scores = f1(both[:, None], either[:, None])
        order = np.lexsort((np.abs(_THRESHOLDS - 50), -scores))
        return float(scores[order[0]]), float(_THRESHOLDS[order[0]] / 100)


@dataclass(frozen=True)
class Cover:
    """One logit for each class of each pixel: cross-entropy; the mean IoU picks the epoch."""

    outputs: int
    scored: tuple[int, ...]

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Cross-entropy."""
        total = F.cross_entropy(logits, masks.long(), ignore_index=IGNORE, reduction="sum")
        return total / (masks != IGNORE).sum().clamp(min=1)

    def answers(self, logits: Tensor, threshold: float) -> np.ndarray:
        """The most likely class."""
        del threshold
        return logits.argmax(dim=1).to(torch.uint8).cpu().numpy()

    def counts_for_validation(self, logits: Tensor, masks: np.ndarray) -> np.ndarray:
        """(classes, classes) counts."""
        return confusion(self.answers(logits, HALF), masks, self.outputs).sum(axis=0)

    def validation_score(self, counts: np.ndarray) -> tuple[float, float]:
        """Mean IoU; there is no threshold."""
        return float(mean_iou(*overlaps(counts, self.scored))), HALF


def dense_target(data: DenseImages) -> DenseTarget:
    """Change if scenes have two dates, else classes."""
    return Change() if data.dates == 2 else Cover(len(data.classes), data.scored)
