"""The last stage: registers the profile's encoder as challenger, decides on it, judges other versions. Imports fast."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from caco_assets.core.errors import UserError
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from caco_assets.registry.aliases.alias_history import Move
    from caco_assets.registry.promotion.decision import Decision
    from caco_assets.registry.register import Registered
    from caco_assets.registry.release.release import Released
    from caco_assets.resources.mlflow.client import Tracking

logger = logging.getLogger(__name__)


def register(
    settings: Settings,
    *,
    tracking: Tracking | None = None,
    data_versions: Mapping[str, str] | None = None,
    run_id: str | None = None,
    encoder: str | None = None,
) -> Registered:
    """Register the encoder of this profile with its scores; it becomes the challenger. Registered once, however often called.

    Args:
        settings: the profile.
        tracking: default: opened here.
        data_versions: product → content hash; of data outside DVC; those that DVC's lock names are added.
        run_id: MLflow run that made the encoder; None: one is opened.
        encoder: register this one instead: a name of `caco encoder import`, or a folder; with its scores where it has any.

    Raises:
        UserError: there is no encoder or no scores yet, the encoder has collapsed, or the server refuses.
    """
    from caco_assets.core import products
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.registry.lineage.record import collect
    from caco_assets.registry.register import register_encoder
    from caco_assets.resources.dvc.commit import commit_stale
    from caco_assets.resources.dvc.commit import data_versions as committed

    if encoder is not None:
        from caco_assets.pretraining.pretrained.import_weights import encoder_folder

        folder = encoder_folder(settings, encoder)
        judged = settings.paths.encoder_scores(folder.name)
        version = {"encoder": products.content_hash(folder)}
        return register_encoder(settings, folder, judged if judged.exists() else None, version, run_id, tracking)
    made = products.recorded(settings.paths.records, "encoder")
    if made.facts.get("collapsed"):
        spread = made.facts["embedding_std"]
        raise UserError(
            f"encoder: its embeddings have collapsed (spread {spread:.3f} of 1); it is not registered: lower "
            "pretraining.learning_rate or enlarge the queue, and train again"
        )
    scores = products.recorded(settings.paths.records, "scores")
    # who runs stage after stage by commands has committed nothing yet
    commit_stale(settings)
    lineage = collect(settings, made.path, Encoder.load(made.path).identity)
    named = {**(data_versions or {}), **committed(settings)}
    return register_encoder(settings, made.path, scores.path, named, run_id, tracking, lineage)


def decide(settings: Settings, *, tracking: Tracking | None = None, override: str | None = None) -> Decision:
    """Let the policy decide on the challenger.

    Args:
        settings: the profile.
        tracking: default: opened here.
        override: reason to promote it although rules fail, for those whom the policy allows.

    Raises:
        UserError: there is no challenger, the policy is wrong, data of a task is missing, an override that is not allowed, or the
            server refuses.
    """
    from caco_assets.registry.versions import find
    from caco_assets.resources.mlflow.client import open_tracking

    tracking = tracking or open_tracking(settings)
    challenger = find(tracking, f"models:/{settings.registry.model}@challenger")
    return judge(settings, tracking, str(challenger.version), override=override)


def judge(settings: Settings, tracking: Tracking, version: str, *, override: str | None = None) -> Decision:
    """Score one version, from wherever it came, and let the policy decide on it.

    Raises:
        UserError: as `decide`, or no such version.
    """
    from caco_assets.registry.promotion.decide import judge_version

    decision = judge_version(settings, tracking, version, override=override)
    logger.info(decision.text())
    return decision


def export(settings: Settings, uri: str, out: Path, *, tracking: Tracking | None = None) -> dict[str, float]:
    """Write an encoder in the forms of other tools to the folder `out`: see `exports.export`.

    Args:
        settings: the profile.
        uri: `models:/name@champion`, `models:/name/3`, or the folder of an encoder.
        out: folder to make; an older export there is replaced.
        tracking: default: opened here where `uri` is in a registry.

    Returns:
        Form → largest difference from the encoder's own features, in their standard deviations.

    Raises:
        UserError: no such encoder, `out` is a folder of something else, or a form does not give the encoder's features.
    """
    import tempfile

    from caco_assets.registry.package.mlflow_model import download, files_of
    from caco_assets.registry.release.export import export_files
    from caco_assets.registry.versions import find
    from caco_assets.resources.mlflow.client import open_tracking

    if not uri.startswith("models:/"):
        return export_files(files_of(Path(uri), uri), out, name=Path(uri).name, vintage=settings.vintage)
    tracking = tracking or open_tracking(settings)
    version = find(tracking, uri)
    with tempfile.TemporaryDirectory() as scratch:
        files = files_of(download(tracking, version, Path(scratch)), uri)
        vintage = version.tags.get("vintage", settings.vintage)
        return export_files(files, out, name=f"{version.name}-{version.version}", vintage=vintage)


def rollback(settings: Settings, *, reason: str, restore: bool = False, tracking: Tracking | None = None) -> str:
    """Swap champion and previous, and return the version that serves now.

    Args:
        settings: the profile.
        reason: why, in a line; kept with the version taken out, which is not promoted again.
        restore: also to a version that a rollback took out of service before.
        tracking: default: opened here.

    Raises:
        UserError: there is none that could serve, or no reason.
    """
    from caco_assets.registry.aliases.champion import rollback as back
    from caco_assets.resources.mlflow.client import open_tracking

    tracking = tracking or open_tracking(settings)
    move = back(tracking, settings.registry.model, reason, restore=restore)
    tell(settings, tracking, move)
    return str(move.after.champion)


def release(settings: Settings, *, tracking: Tracking | None = None) -> Released | None:
    """Export the champion, write its model card and log both to its run; once per version. None: there is no champion.

    Raises:
        UserError: its files cannot be read, a form does not give its features, or the server refuses.
    """
    from caco_assets.registry.release.release import release_champion
    from caco_assets.resources.mlflow.client import open_tracking

    return release_champion(settings, tracking or open_tracking(settings))


def notice(settings: Settings, tracking: Tracking) -> tuple[str, ...]:
    """Record what a person has moved in MLflow, and finish what was cut short; does not wait for a decision that is under way.

    Returns:
        A line for each thing noticed; those that begin with `WARNING` need a person.

    Raises:
        UserError: a decision is under way, or the server refuses.
    """
    from caco_assets.registry.aliases.alias_history import history
    from caco_assets.registry.aliases.alias_moves import settle

    model = settings.registry.model
    mover = settle(tracking, model, wait=False)
    if mover.noticed:
        tell(settings, tracking, history(tracking, model)[-1], warnings=list(mover.noticed))
    return mover.noticed


def unreleased(settings: Settings, tracking: Tracking, *, under_way: bool = False) -> tuple[str, str] | None:
    """The version that serves, whose gate has passed and which has no exports yet.

    A decision is followed by its release, unless the run that takes it dies in between; a move by hand and a rollback are not.

    Args:
        settings: the profile.
        tracking: the registry.
        under_way: a run is at work that takes decisions; what it has put into service is its own to release.

    Returns:
        Its number and since when it serves; None: there is none.
    """
    from caco_assets.registry.aliases.alias_history import history
    from caco_assets.registry.aliases.alias_moves import OVERRIDDEN, PASSED, PROMOTED, WITHDRAWN
    from caco_assets.registry.release.release import RELEASED
    from caco_assets.registry.versions import GATE, find

    model = settings.registry.model
    moves = history(tracking, model)
    if not moves or (under_way and moves[-1].what in (PROMOTED, OVERRIDDEN)) or moves[-1].after.champion is None:
        return None
    version, since = moves[-1].after.champion, moves[-1].at
    tags = find(tracking, f"models:/{model}/{version}").tags
    may_serve = tags.get(GATE) in (PASSED, OVERRIDDEN) and WITHDRAWN not in tags
    return (version, since) if may_serve and RELEASED not in tags else None


def tell(settings: Settings, tracking: Tracking, move: Move, **more: object) -> None:
    """Notify of a move that no decision made."""
    from dataclasses import asdict

    from caco_assets.registry.aliases.notify import notify

    uri = f"models:/{settings.registry.model}/{move.after.champion}"
    notify(settings, tracking, move.what, version=move.after.champion, uri=uri, **asdict(move), **more)
