"""The evidence for a decision: candidate and champion as their registered files load, their scores, features and latency."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.downstream.features.feature_cache import FeatureCache
from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.downstream.scoring.score_task import resolve_tasks
from caco_assets.downstream.stage import score_encoder
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.aliases.alias_moves import WITHDRAWN
from caco_assets.registry.package.mlflow_model import Fetched
from caco_assets.registry.promotion import latency
from caco_assets.registry.promotion.decision import Finding, main_rule
from caco_assets.registry.promotion.policy import Policy
from caco_assets.registry.promotion.rules import loads
from caco_assets.registry.versions import find
from caco_assets.resources.mlflow.client import Tracking
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

# Enough images to detect a collapse, few enough for a fast singular value decomposition.
_IMAGES = 512


@dataclass(frozen=True)
class Candidate:
    """The version to decide on, read once."""

    model: str
    number: str
    tags: Mapping[str, str]
    run_id: str | None

    @classmethod
    def of(cls, version: ModelVersion) -> Candidate:
        """From MLflow's version."""
        return cls(version.name, str(version.version), dict(version.tags), version.run_id)


@dataclass(frozen=True)
class Measured:
    """What was measured on a candidate that loads and may serve."""

    rows: Sequence[ScoreRow]
    champion_rows: Sequence[ScoreRow] | None
    """None: there is no champion, or it does not load."""
    random_rows: Sequence[ScoreRow]
    """Of the same architecture, untrained."""
    features: np.ndarray | None
    """(N, D) of test images of the main row; None: no main row is measured."""
    timing: latency.Timing


@dataclass(frozen=True)
class Evidence:
    """All that a decision depends on besides the policy."""

    candidate: Candidate
    champion: str | None
    """Version that serves, unless it is the candidate."""
    loads: Finding
    fetched: Fetched | None
    """None: the candidate does not load."""
    measured: Measured | None
    """None: the candidate does not load or is withdrawn, so nothing was measured."""

    @property
    def rows(self) -> Sequence[ScoreRow]:
        """Scores of the candidate."""
        return self.measured.rows if self.measured else ()


def gather(settings: Settings, tracking: Tracking, policy: Policy, version: ModelVersion, champion: str | None) -> Evidence:
    """Load and score the version, the champion and the untrained baseline.

    Args:
        settings: the profile.
        tracking: the server.
        policy: names the main rows and the latency measurement.
        version: the candidate.
        champion: number of the version to compare it with; None: there is none.

    Raises:
        UserError: the data of a task is missing, or the server refuses.
    """
    candidate = Candidate.of(version)
    loaded, fetched = loads(tracking, version)
    if fetched is None or WITHDRAWN in candidate.tags:
        return Evidence(candidate, champion, loaded, fetched, None)
    encoder, model = fetched.encoder, candidate.model
    rows = score_encoder(settings, encoder, name=model, model_uri=f"models:/{model}/{candidate.number}")
    rival, rival_rows = None, None
    if champion is not None:
        champion_loads, rival = loads(tracking, find(tracking, f"models:/{model}/{champion}"))
        if rival is None:
            logger.warning(f"{model}: champion {champion} does not load ({champion_loads.sentence}); only the absolute rules apply")
        else:
            rival_rows = score_encoder(settings, rival.encoder, name=model, model_uri=f"models:/{model}/{champion}")
    untrained = Encoder.random(encoder.architecture, encoder.preprocessing, settings.downstream.seeds[0])
    random_rows = score_encoder(settings, untrained, "baseline", name="random")
    rule = main_rule(policy, rows)
    features = _features(settings, encoder, rule.row, rule.size) if rule is not None else None
    timing = latency.measure(encoder, rival.encoder if rival else None, policy.latency)
    return Evidence(candidate, champion, loaded, fetched, Measured(rows, rival_rows, random_rows, features, timing))


def _features(settings: Settings, encoder: Encoder, row: str, size: int) -> np.ndarray:
    """Features of test images of a row, from the cache of the scoring: (N, D)."""
    (data,) = [each.data for each in resolve_tasks(settings) if each.task_name == row]
    if data is None:
        raise UserError(f"downstream.tasks.{row}: its data was removed after scoring; restore it and decide again")
    if isinstance(data, DenseImages):
        raise TypeError(f"{row}: has a class for each pixel, which `read_policy` refuses")
    part = "test" if "test" in data.parts else "val"
    features = FeatureCache(settings.paths.cache).features(encoder, encoder.identity, data, part, size)
    return features[np.random.default_rng(settings.seed).permutation(len(features))[:_IMAGES]]
