"""One contestant on one data set at one size and seed: what a protocol is given, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from caco_assets.downstream.datasets.classification import LabelledImages
from caco_assets.downstream.features.baselines import Candidate
from caco_assets.downstream.features.feature_cache import FeatureCache, FeatureSource
from caco_assets.downstream.finetuning.epoch_checkpoint import EpochCheckpoint
from caco_assets.downstream.metrics.outcomes import Outcome
from caco_assets.downstream.tasks import Task
from caco_assets.settings import FineTune

LARGE = 5000
"""Above this many training images one pass is made with batch norm in train mode, and one random encoder is judged."""


@dataclass(frozen=True)
class Evaluation:
    """One contestant on one data set."""

    task: Task
    data: LabelledImages
    candidate: Candidate
    source: FeatureSource
    size: int
    seed: int
    epochs: int
    """Of the `paper` protocol."""
    cache: FeatureCache
    fine_tune: FineTune = field(default_factory=FineTune)
    checkpoint: EpochCheckpoint = field(default_factory=EpochCheckpoint)
    """Where an interrupted fine-tuning goes on from."""

    def features(self, part: str, size: int, source: FeatureSource | None = None) -> np.ndarray:
        """(N, D) features of a part; of the contestant as it is, or of another form of it."""
        identity = self.candidate.identity if source is None else source.identity
        return self.cache.features(source or self.source, identity, self.data, part, size)


@dataclass(frozen=True)
class Measurement:
    """What one method answered for every item it was tested on."""

    method: str
    outcome: Outcome
    note: str
