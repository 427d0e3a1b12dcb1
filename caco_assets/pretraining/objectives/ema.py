"""The key encoder: a moving average of the query encoder (MoCo, He et al. 2020), never trained by gradient."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def frozen_copy[M: nn.Module](module: M) -> M:
    """A copy with the same weights that is not optimized."""
    return copy.deepcopy(module).requires_grad_(requires_grad=False)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """`target ← momentum · target + (1 − momentum) · source`, for parameters only; `target` keeps its own running statistics."""
    # multiply, then add, as published: `lerp` rounds differently, which is visible in an ill-conditioned ResNet at 32 px
    targets: list[Tensor] = list(target.parameters())
    sources: list[Tensor] = list(source.parameters())
    torch._foreach_mul_(targets, momentum)  # pyright: ignore[reportPrivateImportUsage] - as in torch's own optimizers
    torch._foreach_add_(targets, sources, alpha=1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
