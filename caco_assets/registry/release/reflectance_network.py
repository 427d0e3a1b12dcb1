"""One network from reflectance to features, for export formats without our preprocessing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caco_assets.pretraining.encoder.encoder import Encoder


class ReflectanceNetwork(nn.Module):
    """Archive values in, features out: the stretch, the normalization and the backbone of an encoder.

    Stretch, /255, mean and standard deviation are one table over all 65 536 archive values, so they are exact. Nothing is resized:
    the input has the size of the training images, or any other size that the backbone accepts.
    """

    table: Tensor

    def __init__(self, encoder: Encoder) -> None:
        """Share the weights of the encoder."""
        super().__init__()
        wanted = encoder.preprocessing
        levels = torch.from_numpy(wanted.stretch.tables()).float() / 255  # (C, 65536)
        mean, std = (encoder.mean.view(-1, 1).cpu(), encoder.std.view(-1, 1).cpu())
        self.register_buffer("table", (levels - mean) / std)
        self.backbone = encoder.backbone

    def forward(self, reflectance: Tensor) -> Tensor:
        """int32 (B, C, S, S), reflectance × 10 000 from 0 to 65 535 → float32 (B, D)."""
        index = reflectance.clamp(0, 65_535).long()
        channels = [self.table[c][index[:, c]] for c in range(self.table.shape[0])]
        return self.backbone(torch.stack(channels, dim=1))
