"""Dagster assets of the downstream stages: probe set, scores and evaluation matrix."""

import dagster as dg

from caco_assets.core.stage_versions import stage_version
from caco_assets.downstream.checks import CHECKS, ELSEWHERE, NOT_FAR_BELOW, elsewhere, not_far_below, of_cell, possible
from caco_assets.downstream.inspection.cell_report import shown
from caco_assets.downstream.matrix import Versions
from caco_assets.downstream.stage import probe_set as make_probe_set
from caco_assets.downstream.stage import score
from caco_assets.pretraining.assets import encoder
from caco_assets.resources.dagster.metadata import describe, facts, picture, table
from caco_assets.resources.dvc.commit import DataVersions, data_versions
from caco_assets.resources.mlflow.resource import TrackingResource, live_run, run_of
from caco_assets.resources.profile import Profile
from caco_assets.settings import Settings

# a new version waits at most this long for its row; scoring takes minutes, so a shorter interval gains nothing
SENSOR_INTERVAL_S = 60
ENCODERS = dg.DynamicPartitionsDefinition(name="encoders")
"""Columns of the matrix: baselines, imported encoders, registered versions (`name/3`). The sensor adds them."""


@dg.asset(group_name="downstream", code_version=stage_version("probe_set"), deps=[dg.AssetKey("benchmarks")], kinds={"numpy"})
def probe_set(profile: Profile, versions: DataVersions) -> dg.MaterializeResult:
    """A few labelled training and validation images for probing the encoder while it trains."""
    settings = profile.settings()
    product = make_probe_set(settings)
    versions.commit(settings, "probe_set")
    return describe(product)


@dg.asset(group_name="downstream", code_version=stage_version("scores"), deps=[encoder, dg.AssetKey("benchmarks")], pool="gpu")
def scores(context: dg.AssetExecutionContext, profile: Profile, tracking: TrackingResource) -> dg.MaterializeResult:
    """The encoder and the baselines on every task of the profile: probe, kNN, both protocols, with intervals."""
    from caco_assets.downstream.score_rows import read_rows

    settings = profile.settings()
    product = score(settings)
    rows = read_rows(product.path)
    with tracking.retry_if_away():
        # an earlier attempt or run may have died before all were uploaded, so they are sent again
        if run_of(tracking.open(settings), "scores", product.content_hash, finished=True) is None:
            with live_run(settings, "downstream", data_versions(settings), context.run.run_id) as live:
                ours = [row for row in rows if row.role == "candidate"]
                names = {f"{row.row}.{row.protocol}.{row.method}.{row.size}": row.value for row in ours}
                live.log(0, {name: value for name, value in names.items() if value is not None})
                live.begin().file(product.path)
                live.begin().tag("scores", product.content_hash)
    return describe(product, scores=table([shown(row) for row in rows]))


@dg.asset_check(asset=scores, name=NOT_FAR_BELOW, blocking=True)
def scores_are_not_far_below_random(profile: Profile) -> dg.AssetCheckResult:
    """The encoder is not far below random weights of the same backbone, which only a fault would explain."""
    from caco_assets.downstream.score_rows import read_rows
    from caco_assets.downstream.scoring.sanity import RANDOM

    rows = read_rows(profile.settings().paths.scores)
    return not_far_below(rows, [row for row in rows if row.encoder == RANDOM])


@dg.asset_check(asset=scores, name=ELSEWHERE, blocking=True)
def scores_are_of_other_places(profile: Profile) -> dg.AssetCheckResult:
    """No evaluation image lies where the encoder was pretrained."""
    from caco_assets.downstream.scoring.image_locations import locate_images
    from caco_assets.downstream.scoring.score_task import resolve_tasks

    settings = profile.settings()
    paths, work = settings.paths, resolve_tasks(settings)
    return elsewhere(settings, [locate_images(each, paths.benchmarks, paths.cache) for each in work])


checks = [scores_are_not_far_below_random, scores_are_of_other_places]


def evaluation_matrix(settings: Settings) -> dg.Definitions:
    """The asset `evaluations`, one partition for each task and encoder, and the sensor that requests the cells of a new encoder.

    Empty if the profile has no tasks.
    """
    tasks = list(settings.downstream.tasks)
    if not tasks:
        return dg.Definitions()

    @dg.asset(
        group_name="downstream",
        code_version=stage_version("scores"),
        deps=[dg.AssetKey("benchmarks")],
        partitions_def=dg.MultiPartitionsDefinition({"task": dg.StaticPartitionsDefinition(tasks), "encoder": ENCODERS}),
        check_specs=[dg.AssetCheckSpec(name, asset="evaluations", blocking=True, description=CHECKS[name]) for name in CHECKS],
        pool="gpu",
        kinds={"pytorch"},
    )
    def evaluations(
        context: dg.AssetExecutionContext, profile: Profile, encoders: dg.ResourceParam[Versions]
    ) -> dg.MaterializeResult:
        """One encoder on one task: its scores next to random weights, with plots that break them down."""
        from caco_assets.downstream.inspection.cell_report import places_unknown, view
        from caco_assets.downstream.matrix import score_cell
        from caco_assets.downstream.scoring.image_locations import locate_images

        settings = profile.settings()
        chosen = context.partition_key
        assert isinstance(chosen, dg.MultiPartitionKey)  # noqa: S101 - the definition above
        row, name = (chosen.keys_by_dimension[dimension] for dimension in ("task", "encoder"))
        cell = score_cell(settings, row, name, encoders)
        locations = locate_images(cell.resolved, settings.paths.benchmarks, settings.paths.cache)
        seen = view(settings, cell)
        classes = {"classes": table(seen.classes)} if seen.classes else {}
        pictures = {title: picture(png, title) for title, png in seen.pictures.items()}
        return dg.MaterializeResult(
            metadata={**facts(seen.facts), **pictures, **classes, "figures": table(seen.figures)},
            check_results=[
                of_cell(f"{name} on {row}", result)
                for result in (
                    possible(cell.rows),
                    not_far_below(cell.rows, cell.random),
                    elsewhere(settings, [locations], places_unknown(settings, cell)),
                )
            ],
        )

    job = dg.define_asset_job("evaluate_cell", [evaluations], description="Judges one encoder on one task.")

    @dg.sensor(job=job, minimum_interval_seconds=SENSOR_INTERVAL_S)
    def new_encoder(
        context: dg.SensorEvaluationContext, profile: Profile, encoders: dg.ResourceParam[Versions]
    ) -> dg.SensorResult | dg.SkipReason:
        """Adds a partition for every new encoder and requests its cells."""
        from caco_assets.downstream.matrix import encoder_names

        settings = profile.settings()
        names = encoder_names(settings, encoders)
        done = context.instance.get_materialized_partitions(evaluations.key)
        keys = [dg.MultiPartitionKey({"task": task, "encoder": name}) for name in names for task in settings.downstream.tasks]
        waiting = [key for key in keys if key not in done]
        if not waiting:
            return dg.SkipReason(f"all {len(keys)} cells of {len(names)} encoders have been judged")
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=f"{settings.profile}|{key}", partition_key=key, tags={"profile": settings.profile})
                for key in waiting
            ],
            dynamic_partitions_requests=[ENCODERS.build_add_request(names)],
        )

    return dg.Definitions(assets=[evaluations], jobs=[job], sensors=[new_encoder])
