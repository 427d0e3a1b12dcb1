"""Probes of frozen features for images with several labels: logistic regressions, nearest neighbours, the `paper` layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from caco_assets.core.progress import Progress
from caco_assets.core.torch_threads import torch_threads
from caco_assets.downstream.metrics.average_precision import macro_ap
from caco_assets.downstream.probes.lbfgs import minimize
from caco_assets.downstream.probes.linear_knn import C_GRID, FINAL_STEPS, SWEEP_STEPS, Linear, aligned, nearest
from caco_assets.downstream.tasks import PaperProtocol


def fit_independent(
    features: np.ndarray, labels: np.ndarray, c: float, start: Linear | None = None, iterations: int = 1000
) -> Linear:
    """One logistic regression for each class by L-BFGS, all at once: minimises Σ binary cross-entropy + ‖W‖² / (2C).

    The sum over classes separates, so each class gets the solution of scikit-learn's `LogisticRegression(C=…)`.

    Args:
        features: (N, D) float32, standardised.
        labels: (N, K), 1 where the class is present.
        c: inverse strength of the penalty, the same for all classes.
        start: initial weights; default zeros.
        iterations: maximum number of L-BFGS steps.
    """
    x, y = aligned(features), torch.from_numpy(labels.astype(np.float32))
    weight = start.weight.clone() if start else torch.zeros(y.shape[1], features.shape[1])
    bias = start.bias.clone() if start else torch.zeros(y.shape[1])
    weight.requires_grad_()
    bias.requires_grad_()

    def loss() -> torch.Tensor:
        logits = torch.addmm(bias, x, weight.T)
        value = F.binary_cross_entropy_with_logits(logits, y, reduction="sum") / len(y)
        return value + weight.square().sum() / (2 * c * len(y))

    minimize([weight, bias], loss, iterations, products=x.numel() * y.shape[1])
    return Linear(weight.detach(), bias.detach())


def fit_independent_validated(
    features: np.ndarray, labels: np.ndarray, validation: np.ndarray, validation_labels: np.ndarray
) -> tuple[Linear, float]:
    """Choose one C for all classes by macro average precision on the validation part, then fit once more on both parts.

    Returns:
        The classifiers and the chosen C (on ties, the strongest penalty).
    """
    best, best_figure, c_best = None, -1.0, C_GRID[0]
    model = None
    for c in C_GRID:
        model = fit_independent(features, labels, c, start=model, iterations=SWEEP_STEPS)
        figure = macro_ap(validation_labels, model.scores(validation))
        if figure > best_figure:
            best, best_figure, c_best = model, figure, c
    both = np.concatenate([features, validation])
    both_labels = np.concatenate([labels, validation_labels])
    return fit_independent(both, both_labels, c_best, start=best, iterations=FINAL_STEPS), c_best


def knn_shares(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, ks: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Share of the k nearest training images by cosine similarity that have each label.

    Args:
        features: (N, D) training features.
        labels: (N, K), 1 where the class is present.
        queries: (Q, D).
        ks: numbers of neighbours; more than N counts as N.

    Returns:
        k → (Q, K) float32 in [0, 1].
    """
    found = nearest(features, queries, min(max(ks), len(features)))  # (Q, widest)
    return {k: labels[found[:, :k]].mean(axis=1, dtype=np.float64).astype(np.float32) for k in ks}


def fit_soft_margin_adam(
    features: np.ndarray,
    labels: np.ndarray,
    protocol: PaperProtocol,
    epochs: int,
    seed: int,
) -> Linear:
    """Train a linear layer as the published evaluation on BigEarthNet does: dropout on the features, multi-label soft margin, Adam.

    The loss is torch's `MultiLabelSoftMarginLoss`: binary cross-entropy, the mean over classes and images.

    Args:
        features: (N, D) float32.
        labels: (N, K), 1 where the class is present.
        protocol: rate, batch, milestones and dropout; an incomplete batch is dropped unless it is the only one.
        epochs: number of epochs.
        seed: of the layer's initial weights (torch's default for a linear layer), the order of images and the dropout.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = aligned(np.ascontiguousarray(features, np.float32)), torch.from_numpy(labels.astype(np.float32))
    bound = x.shape[1] ** -0.5
    # weight and bias in one matrix, the bias in the last column
    theta = torch.empty(y.shape[1], x.shape[1] + 1).uniform_(-bound, bound, generator=generator)
    optimizer = torch.optim.Adam([theta], lr=protocol.learning_rate)
    theta.grad = torch.empty_like(theta)
    ends = [int(share * epochs) for share in protocol.milestones]
    size = min(protocol.batch_size, len(x))
    keep = 1 - protocol.dropout
    progress = Progress(f"linear layers by Adam, seed {seed}", epochs, "epoch")
    with torch.no_grad(), torch_threads(1):
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = protocol.learning_rate * 0.1 ** sum(epoch >= end for end in ends)
            order = torch.randperm(len(x), generator=generator)
            for chosen in order[: len(x) // size * size].split(size):
                mask = torch.rand(size, x.shape[1], generator=generator) < keep
                batch = x[chosen] * mask / keep
                logits = torch.addmm(theta[:, -1], batch, theta[:, :-1].T)
                # the gradient of the mean binary cross-entropy with respect to the logits
                error = (logits.sigmoid() - y[chosen]) / y[chosen].numel()  # (B, K)
                torch.mm(error.T, batch, out=theta.grad[:, :-1])
                torch.sum(error, dim=0, out=theta.grad[:, -1])
                optimizer.step()
            progress.advance()
    progress.close()
    return Linear(theta[:, :-1].contiguous(), theta[:, -1].contiguous())


def taken(labels: Sequence[object] | np.ndarray, share: float, seed: int) -> np.ndarray:
    """Sorted positions of a seeded share of the images, at least one."""
    count = max(1, round(share * len(labels)))
    return np.sort(np.random.default_rng(seed).permutation(len(labels))[:count])
