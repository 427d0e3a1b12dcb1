"""The loop that runs itself: the chain as a job, schedules for the next vintage, what follows from drift, a form, a moved alias."""

import dagster as dg

from caco_assets.resources.mlflow.resource import TrackingResource
from caco_assets.resources.profile import Profile
from caco_assets.resources.vintages import note_finished


@dg.success_hook(required_resource_keys={"profile"})
def note_vintage(context: dg.HookContext) -> None:
    """Once the policy has decided, the vintage of the run counts as retrained."""
    if context.op.name != "champion":
        return
    settings = context.resources.profile.settings()
    event = context.instance.get_latest_materialization_event(dg.AssetKey("champion"))
    shown = event.asset_materialization.metadata if event and event.asset_materialization else {}
    version, passed = (shown[name].value if name in shown else "" for name in ("version", "passed"))
    note_finished(settings, context.run_id, str(version), bool(passed))


# the matrix of tasks and encoders has partitions of its own: its cells follow a version, they are no part of the way to one
CHAIN = dg.define_asset_job(
    "chain",
    dg.AssetSelection.all() - dg.AssetSelection.key_substring("evaluations"),
    description="From places to a decided version: everything.",
    hooks={note_vintage},
)
LOOK = dg.define_asset_job(
    "look",
    dg.AssetSelection.assets("quarantine").upstream(),
    description="From places to a vintage that is compared with the last accepted one: data alone, nothing is trained.",
)


class Challenger(dg.Config):
    """A registered version to judge."""

    version: str
    """Its number in the registry."""


@dg.op(pool="gpu")
def judge_version(config: Challenger, profile: Profile, tracking: TrackingResource) -> None:
    """Scores a registered version that came from elsewhere, and lets the policy decide on it."""
    from caco_assets.registry.stage import decide_version, release

    settings = profile.settings()
    server = tracking.open(settings)
    if decide_version(settings, server, config.version).passed:
        release(settings, server)


@dg.job(description="Scores one registered version and lets the promotion policy decide on it.")
def judge_challenger() -> None:
    """One step: a version is scored and decided on together."""
    judge_version()


@dg.op
def release_version(profile: Profile, tracking: TrackingResource) -> None:
    """Exports and card of the version that serves, where it has none yet."""
    from caco_assets.registry.stage import release

    settings = profile.settings()
    with tracking.retry_if_away():
        release(settings, tracking.open(settings))


@dg.job(description="Releases the version that serves: exports and model card, once per version.")
def release_champion() -> None:
    """One step."""
    release_version()
