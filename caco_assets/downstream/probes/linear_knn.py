"""Probes of frozen features for the `clean` protocol: logistic regression with a validated C, and k nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from caco_assets.downstream.probes.lbfgs import minimize

C_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of the penalty, as scikit-learn's `LogisticRegression(C=…)` counts them: on the sum of the losses."""
# Enough to rank the values of C (measured on EuroSAT with 512 features); the final fit runs to convergence.
SWEEP_STEPS = 60
FINAL_STEPS = 500
_CHUNK = 2048
# Similarities in memory at once: one gigabyte.
_TABLE = 1 << 28


@dataclass(frozen=True)
class Scaler:
    """Standardises features with the training part's mean and deviation."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> Scaler:
        """Statistics of (N, D) features; a constant feature keeps scale 1."""
        deviation = features.std(axis=0, dtype=np.float64)
        deviation[deviation < 1e-8] = 1.0
        return cls(features.mean(axis=0, dtype=np.float64), deviation)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float32 (N, D) with mean 0 and deviation 1 on the part it was fitted to."""
        return ((features - self.mean) / self.scale).astype(np.float32)


@dataclass(frozen=True)
class Linear:
    """A fitted linear classifier."""

    weight: torch.Tensor
    """(classes, D)."""
    bias: torch.Tensor
    """(classes,)."""

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(N,) int64 class of each row of (N, D)."""
        return (aligned(features) @ self.weight.T + self.bias).argmax(dim=1).numpy()

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(N, classes) float32 logits of each row of (N, D). Unlike probabilities they do not saturate at 1 and tie."""
        return (aligned(features) @ self.weight.T + self.bias).numpy()


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, classes: int, c: float, start: Linear | None = None, iterations: int = 1000
) -> Linear:
    """Multinomial logistic regression by L-BFGS: minimises Σ cross-entropy + ‖W‖² / (2C), the bias free, as scikit-learn does.

    Args:
        features: (N, D) float32, standardised.
        labels: (N,) int64.
        classes: number of classes.
        c: inverse strength of the penalty.
        start: initial weights; default zeros.
        iterations: maximum number of L-BFGS steps.
    """
    x, y = aligned(features), torch.from_numpy(labels)
    weight = start.weight.clone() if start else torch.zeros(classes, features.shape[1])
    bias = start.bias.clone() if start else torch.zeros(classes)
    weight.requires_grad_()
    bias.requires_grad_()

    def loss() -> torch.Tensor:
        return F.cross_entropy(torch.addmm(bias, x, weight.T), y) + weight.square().sum() / (2 * c * len(y))

    minimize([weight, bias], loss, iterations, products=x.numel() * classes)
    return Linear(weight.detach(), bias.detach())


def fit_validated(
    features: np.ndarray, labels: np.ndarray, validation: np.ndarray, validation_labels: np.ndarray, classes: int
) -> tuple[Linear, float]:
    """Choose C on the validation part, then fit once more on training and validation together.

    The grid runs from the strongest penalty to the weakest; each fit starts from the previous one.

    Returns:
        The classifier and the chosen C (on ties, the strongest penalty).
    """
    best, best_accuracy, c_best = None, -1.0, C_GRID[0]
    model = None
    for c in C_GRID:
        model = fit_logistic(features, labels, classes, c, start=model, iterations=SWEEP_STEPS)
        accuracy = float((model.predict(validation) == validation_labels).mean())
        if accuracy > best_accuracy:
            best, best_accuracy, c_best = model, accuracy, c
    both = np.concatenate([features, validation])
    both_labels = np.concatenate([labels, validation_labels])
    return fit_logistic(both, both_labels, classes, c_best, start=best, iterations=FINAL_STEPS), c_best


def knn_predict(
    features: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int, ks: tuple[int, ...]
) -> dict[int, np.ndarray]:
    """Majority vote of the k nearest training images by cosine similarity; a tie goes to the lower class, as in scikit-learn.

    Args:
        features: (N, D) training features.
        labels: (N,) int64.
        queries: (Q, D).
        classes: number of classes.
        ks: numbers of neighbours; more than N counts as N.

    Returns:
        k → (Q,) int64 predicted classes.
    """
    targets = torch.from_numpy(labels)
    votes = targets[torch.from_numpy(nearest(features, queries, min(max(ks), len(features))))]  # (Q, widest)
    return {k: F.one_hot(votes[:, :k], classes).sum(dim=1).argmax(dim=1).numpy() for k in ks}


def nearest(features: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` rows of (N, D) nearest by cosine to each of (Q, D) `queries`, nearest first: int64 (Q, count)."""
    bank = F.normalize(torch.from_numpy(np.ascontiguousarray(features, np.float32)), dim=1)
    chunk = min(_CHUNK, max(1, _TABLE // len(bank)))
    found = []
    for start in range(0, len(queries), chunk):
        some = F.normalize(torch.from_numpy(np.ascontiguousarray(queries[start : start + chunk], np.float32)), dim=1)
        found.append((some @ bank.T).topk(count, dim=1).indices)  # (≤ chunk, count)
    return torch.cat(found).numpy()


def aligned(features: np.ndarray) -> torch.Tensor:
    """A copy in torch's own memory: the alignment of numpy's memory affects how a matrix product rounds."""
    return torch.from_numpy(features).clone()
