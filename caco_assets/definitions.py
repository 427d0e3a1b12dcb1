"""The Dagster code location: collects the rooms' assets, checks, jobs, schedules, sensors and resources."""

import dagster as dg

from caco_assets.downstream import assets as downstream
from caco_assets.evaluation import assets as evaluation
from caco_assets.imagery import assets as imagery
from caco_assets.orchestration import jobs, retrain_form, schedules, sensors
from caco_assets.pretraining import assets as pretraining
from caco_assets.pretraining.launch.pipes_resource import TrainingProcess
from caco_assets.registry import assets as registry
from caco_assets.registry.encoders_resource import RegisteredEncoders
from caco_assets.resources.dagster.console_logger import console
from caco_assets.resources.dvc.commit import DataVersions
from caco_assets.resources.mlflow.resource import TrackingResource
from caco_assets.resources.profile import Profile
from caco_assets.sampling import assets as sampling
from caco_assets.settings import Settings, load_settings
from caco_assets.synthetic import assets as synthetic
from caco_assets.validation.assets import build_checks


def build_definitions(settings: Settings, profile: str) -> dg.Definitions:
    """The asset graph for one profile."""
    # the chain makes catalogs only of the embedded Earth and of a folder; any other exists already
    sources = {"synthetic": synthetic.catalog, "folder": imagery.catalog}
    kind = settings.imagery.source.kind
    catalog = sources.get(kind, dg.AssetSpec("catalog", group_name="imagery"))
    # `caco archive import` makes the archive of a published set, so there are no scenes to choose
    imported = kind == "seco_layout"
    scenes = dg.AssetSpec("scenes", group_name="imagery") if imported else imagery.scenes
    # a profile without a probe during training needs no probe set
    probe_set = downstream.probe_set if settings.pretraining.probe_task else dg.AssetSpec("probe_set", group_name="downstream")
    chain = dg.Definitions(
        assets=[
            sampling.locations,
            catalog,
            scenes,
            imagery.archive,
            imagery.quarantine,
            pretraining.pack,
            synthetic.benchmarks,
            probe_set,
            registry.parent,
            pretraining.encoder,
            pretraining.change_maps,
            downstream.scores,
            evaluation.report,
            registry.challenger,
            registry.champion,
            registry.release,
        ],
        asset_checks=[*build_checks(without="scenes" if imported else None), *pretraining.checks, *downstream.checks],
        jobs=[jobs.CHAIN, jobs.DATA_ONLY, jobs.LOOK, jobs.judge_challenger, jobs.release_champion, retrain_form.retrain],
        schedules=[schedules.monthly_retraining(settings), *schedules.drift_checks(settings)],
        sensors=[sensors.unscored_challenger, sensors.alias_moved, retrain_form.requested_vintage, sensors.drifted],
        resources={
            "profile": Profile(name=profile, home=str(settings.home)),
            "versions": DataVersions(),
            "tracking": TrackingResource(),
            "encoders": RegisteredEncoders(),
            "training": TrainingProcess(),
        },
        loggers={"console": console},
        # one process: separate step processes would each import torch
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(chain, downstream.evaluation_matrix(settings))


def _definitions() -> dg.Definitions:
    import os

    profile = os.environ.get("CACO_PROFILE", "embedded")
    return build_definitions(load_settings(profile), profile)


defs = _definitions()
