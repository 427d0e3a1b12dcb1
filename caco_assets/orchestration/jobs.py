"""Jobs: the whole chain, its data part alone, the decision on a registered version, and a release."""

import dagster as dg

from caco_assets.resources.mlflow.resource import TrackingResource
from caco_assets.resources.profile import Profile
from caco_assets.resources.vintages import note_finished


@dg.success_hook(required_resource_keys={"profile"})
def note_vintage(context: dg.HookContext) -> None:
    """Record the run's vintage as retrained once the policy has decided."""
    if context.op.name != "champion":
        return
    settings = context.resources.profile.settings()
    event = context.instance.get_latest_materialization_event(dg.AssetKey("champion"))
    shown = event.asset_materialization.metadata if event and event.asset_materialization else {}
    version, passed = (shown[name].value if name in shown else "" for name in ("version", "passed"))
    note_finished(settings, context.run_id, str(version), bool(passed))


# the evaluation matrix has its own partitions: its cells evaluate a version that exists already
CHAIN = dg.define_asset_job(
    "chain",
    dg.AssetSelection.all() - dg.AssetSelection.key_substring("evaluations"),
    description="From places to a decided version: everything.",
    hooks={note_vintage},
)
_DATA = dg.AssetSelection.assets("quarantine").upstream()
DATA_ONLY = dg.define_asset_job(
    "data_only",
    _DATA,
    description="From places to the drift check against the last accepted vintage: makes data, trains nothing.",
)


@dg.success_hook
def warn_of_old_name(context: dg.HookContext) -> None:
    """Log once per run that the job has a new name."""
    if context.op.name == "quarantine":
        context.log.warning("the job `look` is now `data_only`; the old name works until the next release")


LOOK = dg.define_asset_job("look", _DATA, description="Old name of `data_only`.", hooks={warn_of_old_name})
"""Alias of the renamed job, for callers that launch it by its old name."""


class Challenger(dg.Config):
    """A registered version to score and decide on."""

    version: str
    """Its number in the registry."""


@dg.op(pool="gpu")
def judge_version(config: Challenger, profile: Profile, tracking: TrackingResource) -> None:
    """Scores a version that was registered outside of this chain, and lets the promotion policy decide on it."""
    from caco_assets.registry.stage import decide_version, release

    settings = profile.settings()
    server = tracking.open(settings)
    if decide_version(settings, server, config.version).passed:
        release(settings, server)


@dg.job(description="Scores one registered version and lets the promotion policy decide on it.")
def judge_challenger() -> None:
    """Score the version and decide on it."""
    judge_version()


@dg.op
def release_version(profile: Profile, tracking: TrackingResource) -> None:
    """Makes exports and model card of the serving version, if it has none yet."""
    from caco_assets.registry.stage import release

    settings = profile.settings()
    with tracking.retry_if_away():
        release(settings, tracking.open(settings))


@dg.job(description="Releases the serving version: exports and model card, once per version.")
def release_champion() -> None:
    """Run `release_version`."""
    release_version()
