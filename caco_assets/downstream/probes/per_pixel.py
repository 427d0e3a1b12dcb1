"""The per-pixel baseline: logistic regression on band values, or on their differences between two dates."""

from __future__ import annotations

import numpy as np
import torch

from caco_assets.downstream.datasets.image_decoding import IGNORE
from caco_assets.downstream.features.pyramids import Tiles
from caco_assets.downstream.finetuning.dense_targets import DenseTarget
from caco_assets.downstream.probes.linear_knn import Linear, Scaler, aligned, fit_logistic

_SAMPLE = 20_000
"""Number of training pixels: enough for a few dozen weights."""


class PixelModel:
    """A fitted regression with a decoder's interface, so that validation and scores are the same for both."""

    def __init__(self, scaler: Scaler, model: Linear, target: DenseTarget) -> None:
        self._scaler, self._model, self._target = scaler, model, target

    def logits(self, tiles: Tiles, index: slice) -> torch.Tensor:
        """(B, outputs, H, W) for a range of tiles."""
        values = _values(np.asarray(tiles.images[index]), tiles)  # (B, H, W, D)
        scores = aligned(self._scaler(values.reshape(-1, values.shape[-1]))) @ self._model.weight.T + self._model.bias
        scores = scores.reshape(*values.shape[:3], -1).permute(0, 3, 1, 2)
        # a softmax of two classes is one logit: the difference
        return scores[:, 1:] - scores[:, :1] if self._target.outputs == 1 else scores


def fit_pixels(tiles: Tiles, target: DenseTarget, classes: int, seed: int) -> PixelModel:
    """Fit on a seeded sample of the pixels that count.

    Args:
        tiles: of the training part.
        target: what the decoder learns.
        classes: of the masks.
        seed: of the sample.
    """
    rng = np.random.default_rng(seed)
    per_tile = max(1, _SAMPLE // len(tiles))
    values, labels = [], []
    for number in range(len(tiles)):
        mask = np.asarray(tiles.masks[number]).ravel()
        chosen = rng.permutation(np.flatnonzero(mask != IGNORE))[:per_tile]
        of_tile = _values(np.asarray(tiles.images[number : number + 1]), tiles)[0]
        values.append(of_tile.reshape(-1, of_tile.shape[-1])[chosen])
        labels.append(mask[chosen].astype(np.int64))
    sample, truth = np.concatenate(values), np.concatenate(labels)
    scaler = Scaler.fit(sample)
    return PixelModel(scaler, fit_logistic(scaler(sample), truth, classes, c=1.0), target)


def _values(images: np.ndarray, tiles: Tiles) -> np.ndarray:
    """(B, T, C, H, W) integers → (B, H, W, C) float32 reflectance; for two dates, the values and their absolute difference, 3·C."""
    reflectance = images.astype(np.float32) * tiles.fmt.reflectance_per_dn + tiles.fmt.offset
    if images.shape[1] == 1:
        layers = reflectance[:, 0]
    else:
        layers = np.concatenate([reflectance[:, 0], reflectance[:, 1], np.abs(reflectance[:, 1] - reflectance[:, 0])], axis=1)
    return np.moveaxis(layers, 1, -1)
