"""A small U-Net decoder on five feature levels: as in published change detection (SeCo, CACo), for any number of classes.

Each step: upsample by two (nearest), 3×3 convolution, concatenate the encoder's level, 3×3 convolution, batch norm, dropout 0.3;
finally upsample by two and 1×1. A ReLU follows each batch norm; the published description does not name it, but without it the
decoder would be linear.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DROPOUT = 0.3


class UNetDecoder(nn.Module):
    """Five levels (B, D_i, H/2^(i+1), W/2^(i+1)), the finest first → logits (B, `outputs`, H, W)."""

    def __init__(self, channels: Sequence[int], outputs: int, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_Up(deep, skip, dropout) for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.head = nn.Conv2d(channels[0], outputs, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Logits of each pixel."""
        x = levels[-1]
        for step, skip in zip(self.steps, levels[-2::-1], strict=True):
            x = step(x, skip)
        # a 1×1 convolution before nearest upsampling equals one after it, at a quarter of the cost
        return F.interpolate(self.head(x), scale_factor=2.0, mode="nearest")


class _Up(nn.Module):
    """One upsampling step."""

    def __init__(self, deep: int, skip: int, dropout: float) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(deep, skip, 3, padding=1)
        self.merge = nn.Conv2d(2 * skip, skip, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(skip)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, deep, h, w) and (B, skip, ~2h, ~2w) → (B, skip, ~2h, ~2w)."""
        # a side that is not a multiple of 32 is rounded somewhere: the encoder's level gives the size
        x = self.shrink(F.interpolate(x, size=skip.shape[-2:], mode="nearest"))
        x = self.merge(torch.cat([skip, x], dim=1))
        return self.dropout(F.relu(self.norm(x)))
