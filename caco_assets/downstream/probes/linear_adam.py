"""Trains the linear layer of the `paper` protocol: Adam in small batches on cached features, last epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from caco_assets.core.progress import Progress
from caco_assets.core.torch_threads import torch_threads
from caco_assets.downstream.probes.linear_knn import Linear
from caco_assets.downstream.tasks import PaperProtocol


def fit_linear_adam(
    shuffles: Sequence[np.ndarray],
    labels: np.ndarray,
    classes: int,
    protocol: PaperProtocol,
    epochs: int,
    seed: int,
) -> Linear:
    """Train a linear layer as the published evaluation does.

    Args:
        shuffles: one or more (N, D) float32 versions of the same training features; epoch e uses version e modulo their number.
        labels: (N,) int64.
        classes: number of classes.
        protocol: rate, batch and milestones.
        epochs: number of epochs.
        seed: of the layer's initial weights (torch's default initialisation of a linear layer) and of the order of images.
    """
    generator = torch.Generator().manual_seed(seed)
    versions = [torch.from_numpy(np.ascontiguousarray(features, np.float32)) for features in shuffles]
    n, width = versions[0].shape
    onehot = torch.nn.functional.one_hot(torch.from_numpy(labels), classes).float()
    bound = width**-0.5
    # weight and bias in one matrix, the bias in the last column
    theta = torch.empty(classes, width + 1).uniform_(-bound, bound, generator=generator)
    optimizer = torch.optim.Adam([theta], lr=protocol.learning_rate, fused=True)
    theta.grad = torch.empty_like(theta)
    ends = [int(share * epochs) for share in protocol.milestones]
    progress = Progress(f"linear layer by Adam, seed {seed}", epochs, "epoch")
    # a step multiplies 32 rows: sharing it among threads costs three to seven times what it saves
    with torch.no_grad(), torch_threads(1):
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = protocol.learning_rate * 0.1 ** sum(epoch >= end for end in ends)
            order = torch.randperm(n, generator=generator)
            x, y = versions[epoch % len(versions)][order], onehot[order]
            for batch, target in zip(x.split(protocol.batch_size), y.split(protocol.batch_size), strict=True):
                logits = torch.addmm(theta[:, -1], batch, theta[:, :-1].T)
                # the gradient of the mean cross-entropy with respect to the logits
                error = (logits.softmax(dim=1) - target) / len(batch)  # (B, classes)
                torch.mm(error.T, batch, out=theta.grad[:, :-1])
                torch.sum(error, dim=0, out=theta.grad[:, -1])
                optimizer.step()
            progress.advance()
    return Linear(theta[:, :-1].contiguous(), theta[:, -1].contiguous())
