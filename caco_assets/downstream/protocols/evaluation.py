"""The input of a protocol (a candidate on a data set at one size and seed), and the measurement it returns."""

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
"""Above this many training images one pass is made with batch norm in train mode, and a single random encoder is scored."""


@dataclass(frozen=True)
class Evaluation:
    """One candidate on one data set."""

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
    """The state that an interrupted fine-tuning resumes from."""

    def features_of(self, part: str) -> np.ndarray:
        """(N, D) features of a part, of the unmodified candidate, at the size of this evaluation."""
        return self.features(part, self.size)

    def features(self, part: str, size: int, source: FeatureSource | None = None) -> np.ndarray:
        """(N, D) features of a part; of the candidate itself, or of another form of it."""
        identity = self.candidate.identity if source is None else source.identity
        return self.cache.features(source or self.source, identity, self.data, part, size)


@dataclass(frozen=True)
class Measurement:
    """The predictions of one method for every item it was tested on."""

    method: str
    outcome: Outcome
    note: str
