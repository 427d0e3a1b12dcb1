"""The products of the registry: a registered challenger, the decision on it, and the champion's release. Cheap to import."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from caco_assets.core.errors import UserError
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from caco_assets.registry.promotion.decision import Decision
    from caco_assets.registry.register import Registered
    from caco_assets.registry.release.release import Released
    from caco_assets.registry.scored_encoder import ScoredEncoder
    from caco_assets.resources.mlflow.client import Tracking

logger = logging.getLogger(__name__)


def register(
    settings: Settings,
    scored: ScoredEncoder,
    tracking: Tracking,
    *,
    data_versions: Mapping[str, str] | None = None,
    run_id: str | None = None,
) -> Registered:
    """Register the encoder of this profile with its scores; it becomes the challenger. Idempotent.

    Args:
        settings: the profile.
        scored: the encoder and its scores.
        tracking: the server.
        data_versions: product → content hash, of data outside DVC; those of `dvc.lock` are added.
        run_id: MLflow run that made the encoder; None: one is opened.

    Raises:
        UserError: the encoder has collapsed, or the server refuses.
    """
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.registry.lineage.record import collect
    from caco_assets.registry.register import register_encoder
    from caco_assets.resources.dvc.commit import commit_stale
    from caco_assets.resources.dvc.commit import data_versions as committed

    encoder = scored.encoder
    if encoder.facts.get("collapsed"):
        spread = encoder.facts["embedding_std"]
        raise UserError(
            f"encoder: its embeddings have collapsed (spread {spread:.3f} of 1); it is not registered: lower "
            "pretraining.learning_rate or enlarge the queue, and train again"
        )
    # commands that run stage by stage have not committed to DVC yet
    commit_stale(settings)
    lineage = collect(settings, encoder.path, Encoder.load(encoder.path).identity)
    versions = {**(data_versions or {}), **committed(settings)}
    drift = scored.drift if "pack" in versions else None
    return register_encoder(settings, encoder.path, scored.scores.path, versions, run_id, tracking, lineage, drift)


def register_imported(settings: Settings, name: str, tracking: Tracking) -> Registered:
    """Register an imported encoder, with its scores if it has any; it becomes the challenger. Idempotent.

    Args:
        settings: the profile.
        name: of `caco encoder import`, or the folder of an encoder.
        tracking: the server.

    Raises:
        UserError: there is no such encoder, or the server refuses.
    """
    from caco_assets.core.products import content_hash
    from caco_assets.pretraining.pretrained.import_weights import encoder_folder
    from caco_assets.registry.register import register_encoder

    folder = encoder_folder(settings, name)
    scores = settings.paths.encoder_scores(folder.name)
    data = {"encoder": content_hash(folder)}
    return register_encoder(settings, folder, scores if scores.exists() else None, data, tracking=tracking)


def decide(settings: Settings, tracking: Tracking, *, override: str | None = None) -> Decision:
    """Let the policy decide on the challenger.

    Args:
        settings: the profile.
        tracking: the server.
        override: reason to promote it despite failed rules; only for users whom the policy allows.

    Raises:
        UserError: there is no challenger, the policy is invalid, data of a task is missing, the override is not allowed, or the
            server refuses.
    """
    from caco_assets.registry.versions import find

    challenger = find(tracking, f"models:/{settings.registry.model}@challenger")
    return decide_version(settings, tracking, str(challenger.version), override=override)


def decide_version(settings: Settings, tracking: Tracking, version: str, *, override: str | None = None) -> Decision:
    """Score a version, whatever its origin, and let the policy decide on it.

    Raises:
        UserError: as `decide`, or there is no such version.
    """
    from caco_assets.registry.promotion.decide import decide_promotion

    decision = decide_promotion(settings, tracking, version, override=override)
    logger.info(decision.text())
    return decision


def release(settings: Settings, tracking: Tracking) -> Released | None:
    """Export the champion, write its model card and log both to its run, once per version; None: there is no champion.

    Raises:
        UserError: its files cannot be read, an export does not give the encoder's features, or the server refuses.
    """
    from caco_assets.registry.release.release import release_champion

    return release_champion(settings, tracking)
