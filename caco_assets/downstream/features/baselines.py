"""Baselines: a randomly initialized encoder, an ImageNet encoder, and plain pixel statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from caco_assets.core.errors import UserError
from caco_assets.downstream.features.feature_cache import FeatureSource
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import PixelFormat, Preprocessing


@dataclass(frozen=True)
class Candidate:
    """An encoder or baseline to be scored."""

    name: str
    role: str
    """`candidate` or `baseline`."""
    seed: int
    source: FeatureSource | None
    """None if it is not available; `reason` says why."""
    identity: str = ""
    model_uri: str | None = None
    reason: str = ""

    @classmethod
    def of(cls, name: str, role: str, seed: int, source: FeatureSource, model_uri: str | None = None) -> Candidate:
        """Hash the source once; an encoder gets a faster memory layout with the same results."""
        if isinstance(source, Encoder):
            # 1.26 times the rate of the default layout on a CPU for a ResNet-18 at 64 px
            source.backbone.to(memory_format=torch.channels_last)
        return cls(name, role, seed, source, source.identity, model_uri)


# Reflectance that EuroSAT RGB shows as white: divided by it, the statistics are those of a [0, 1] image, which is what the
# encoders see in the `paper` protocol (which does not standardise).
_WHITE = 0.275


@dataclass(frozen=True)
class RawStatistics:
    """Mean and deviation of every band over the image: 2·C features, no network, any input size."""

    @property
    def identity(self) -> str:
        """Changes with the computation."""
        return "raw-statistics-1"

    def features(self, pixels: np.ndarray, fmt: PixelFormat, size: int | None = None, batch_size: int = 256) -> np.ndarray:
        """(N, C, H, W) integers → (N, 2C) float32: means, then deviations, of reflectance / 0.275."""
        del size, batch_size
        values = (pixels.astype(np.float32) * fmt.reflectance_per_dn + fmt.offset) / _WHITE
        return np.concatenate([values.mean(axis=(2, 3)), values.std(axis=(2, 3))], axis=1).astype(np.float32)


def _random(like: Encoder, seeds: Sequence[int]) -> list[Candidate]:
    return [Candidate.of("random", "baseline", seed, Encoder.random(like.architecture, like.preprocessing, seed)) for seed in seeds]


def _imagenet(like: Encoder, seeds: Sequence[int]) -> list[Candidate]:
    try:
        encoder = Encoder.imagenet(like.architecture, _photographs(like.preprocessing))
    except UserError as reason:
        return [Candidate("imagenet", "baseline", seeds[0], None, reason=str(reason))]
    return [Candidate.of("imagenet", "baseline", seeds[0], encoder)]


def _photographs(like: Preprocessing) -> Preprocessing:
    """The preprocessing for ImageNet weights, independent of the candidate: EuroSAT's stretch, the closest to photographs.

    Bands without limits in that stretch (other sensors) keep the preprocessing of `like`.
    """
    try:
        return Preprocessing.of_pack(like.bands, "eurosat", like.size)
    except UserError:
        return like


def _raw_statistics(like: Encoder, seeds: Sequence[int]) -> list[Candidate]:
    del like
    return [Candidate.of("raw_statistics", "baseline", seeds[0], RawStatistics())]


_MAKERS: dict[str, Callable[[Encoder, Sequence[int]], list[Candidate]]] = {
    "random": _random,
    "imagenet": _imagenet,
    "raw_statistics": _raw_statistics,
}


def baselines(names: Sequence[str], like: Encoder, seeds: Sequence[int]) -> list[Candidate]:
    """The named baselines with the backbone and preprocessing of `like`; one random encoder for every seed."""
    return [candidate for name in names for candidate in _MAKERS[name](like, seeds)]
