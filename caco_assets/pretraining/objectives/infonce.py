"""InfoNCE loss (van den Oord et al. 2018) with the positive in column 0 and negatives in all others, and its metrics."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def infonce(logits: Tensor) -> Tensor:
    """Mean over rows of −log( exp(l₀) / Σⱼ exp(lⱼ) ); `logits` (N, 1 + negatives) are similarities already divided by τ."""
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


@torch.no_grad()
def accuracy(logits: Tensor) -> Tensor:
    """Share of rows (0 … 1) whose positive scores highest."""
    return (logits.argmax(dim=1) == 0).float().mean()


@torch.no_grad()
def top1(scores: Tensor, wanted: Tensor) -> Tensor:
    """Share of rows (0 … 1) of `scores` (N, classes) whose highest score is at `wanted` (N,)."""
    return (scores.argmax(dim=1) == wanted).float().mean()


@torch.no_grad()
def embedding_std(embeddings: Tensor) -> Tensor:
    """Spread of unit vectors (E, N, C) in the narrowest space: mean deviation per dimension times √C.

    1 when they fill the sphere, 0 when all images map to one point.
    """
    return embeddings.std(dim=1).mean(dim=1).min() * embeddings.shape[2] ** 0.5
