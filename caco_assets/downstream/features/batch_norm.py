"""Computes features with batch norm in train mode, as in the published evaluation of frozen encoders.

There the encoder is part of the trained module: in training its batch norms use each batch's own statistics and update the
running ones; at test time it is in evaluation mode with the running statistics of the training images.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from caco_assets.core.progress import Progress
from caco_assets.downstream.features.device import accelerated
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import PixelFormat


def has_batch_norm(encoder: Encoder) -> bool:
    """Whether the mode of the encoder matters (it has batch norm)."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in encoder.backbone.modules())


def train_mode_features(
    encoder: Encoder, pixels: np.ndarray, fmt: PixelFormat, *, size: int, batch_size: int, shuffles: int, seed: int
) -> tuple[list[np.ndarray], Encoder]:
    """Pass the training images `shuffles` times, each time in batches of another seeded order, batch norm in train mode.

    Args:
        encoder: unchanged; a copy is used.
        pixels: (N, C, H, W) integers as stored.
        fmt: their pixel format.
        size: side of the input, pixels.
        batch_size: images per batch, which share statistics.
        shuffles: number of passes.
        seed: of the orders.

    Returns:
        `shuffles` arrays (N, D) float32 in the order of `pixels`, and the copy with the resulting running statistics.
    """
    adapted = copy.deepcopy(encoder)
    adapted.backbone.train()
    rng = np.random.default_rng(seed)
    versions = []
    progress = Progress("encode with batch norm in train mode", shuffles * len(pixels), "image")
    with torch.no_grad(), accelerated(adapted):
        for _ in range(shuffles):
            order = rng.permutation(len(pixels))
            features = np.empty((len(pixels), adapted.width), np.float32)
            for batch in batches(order, batch_size):
                features[batch] = adapted(adapted.preprocess(pixels[batch], fmt, size)).cpu().numpy()
                progress.advance(len(batch))
            versions.append(features)
    progress.close()
    return versions, adapted.eval()


def batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Consecutive batches; a single remaining image joins the previous batch, since one image has no statistics."""
    parts = np.split(order, range(size, len(order), size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return parts
