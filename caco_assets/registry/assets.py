"""Dagster assets of the registry: parent, registered version, decision and release."""

import dagster as dg

from caco_assets.evaluation.assets import report
from caco_assets.registry.parent import find_parent
from caco_assets.registry.scored_encoder import ScoredEncoder
from caco_assets.registry.stage import decide, register
from caco_assets.registry.stage import release as publish
from caco_assets.resources.dagster.metadata import describe, picture, table
from caco_assets.resources.dvc.commit import data_versions
from caco_assets.resources.mlflow.resource import TrackingResource, run_of
from caco_assets.resources.profile import Profile


@dg.asset(group_name="pretraining", kinds={"mlflow"})
def parent(profile: Profile, tracking: TrackingResource) -> dg.MaterializeResult:
    """The warm-start parent: the champion, if the profile asks for it and there is one."""
    settings = profile.settings()
    with tracking.retry_if_away():
        server = tracking.open(settings) if settings.pretraining.warm_start != "none" else None
        return describe(find_parent(settings, tracking=server, again=profile.force))


@dg.asset(group_name="registry", deps=[report], kinds={"mlflow"})
def challenger(profile: Profile, tracking: TrackingResource) -> dg.MaterializeResult:
    """The encoder as a registered version with its preprocessing, data hashes and scores."""
    from caco_assets.registry.lineage.tree import lineage_tree

    settings = profile.settings()
    with tracking.retry_if_away():
        server = tracking.open(settings)
        scored = ScoredEncoder.recorded(settings)
        run_id = run_of(server, "encoder", scored.encoder.content_hash)
        registered = register(settings, scored, server, data_versions=data_versions(settings), run_id=run_id)
        tree = dg.MetadataValue.md(f"```\n{lineage_tree(server, registered.uri)}\n```")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(registered.uri),
        metadata={
            "uri": registered.uri,
            "version": registered.version,
            "alias": registered.alias,
            "reused": registered.reused,
            "lineage": tree,
            **{f"data.{name}": md5 for name, md5 in data_versions(settings).items()},
        },
    )


# uses the GPU: a champion of an older month may not have been scored on this data yet
@dg.asset(group_name="registry", deps=[challenger], pool="gpu", kinds={"mlflow"})
def champion(profile: Profile, tracking: TrackingResource) -> dg.MaterializeResult:
    """The decision of the policy on the challenger, rule by rule; the version that serves."""
    settings = profile.settings()
    with tracking.retry_if_away():
        decision = decide(settings, tracking.open(settings))
    verdict = "passes" if decision.passed else f"does not pass: {', '.join(finding.rule for finding in decision.failed)}"
    against = f"champion {decision.champion}" if decision.champion else "no champion"
    return dg.MaterializeResult(
        metadata={
            "passed": decision.passed,
            "verdict": f"version {decision.version} {verdict}",
            "version": decision.version,
            "compared_with": against,
            "rules": table([finding.row() for finding in decision.findings]),
        }
    )


@dg.asset(group_name="registry", deps=[champion], kinds={"mlflow", "onnx"})
def release(profile: Profile, tracking: TrackingResource) -> dg.MaterializeResult:
    """The champion's exports and model card, logged to its run; made once per version."""
    settings = profile.settings()
    with tracking.retry_if_away():
        released = publish(settings, tracking.open(settings))
    if released is None:
        return dg.MaterializeResult(metadata={"released": False, "why": "no version has passed the promotion policy yet"})
    shown = {"places": picture(released.places, "training places")} if released.places else {}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(released.where),
        metadata={
            "released": True,
            "version": released.version,
            "where": released.where,
            "reused": released.reused,
            "card": dg.MetadataValue.md(released.card),
            **shown,
        },
    )
