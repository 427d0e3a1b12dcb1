"""Dagster assets of pretraining: the training pack, the encoder, and the change maps."""

import dagster as dg

from caco_assets.core.products import recorded
from caco_assets.core.stage_versions import stage_version
from caco_assets.imagery.assets import quarantine
from caco_assets.pretraining.launch.pipes_resource import TrainingProcess
from caco_assets.pretraining.on_record import archive_shards, training_inputs
from caco_assets.pretraining.stage import build_pack, map_changes, pretrain, tracked_run
from caco_assets.pretraining.training.metrics_log import METRICS, read_metrics
from caco_assets.pretraining.training.stop_request import Stopped
from caco_assets.resources.dagster.metadata import describe, picture
from caco_assets.resources.dvc.commit import DataVersions, data_versions
from caco_assets.resources.mlflow.resource import TrackingResource, live_run, run_of
from caco_assets.resources.mlflow.runs import code_version
from caco_assets.resources.profile import Profile


@dg.asset(group_name="pretraining", code_version=stage_version("pack"), deps=[quarantine], kinds={"numpy"})
def pack(profile: Profile, versions: DataVersions) -> dg.MaterializeResult:
    """The archive as uint8 arrays, with the bands and the stretch that training reads."""
    settings = profile.settings()
    product = build_pack(settings, archive_shards(settings))
    versions.commit(settings, "pack")
    return describe(product)


@dg.asset(
    group_name="pretraining",
    code_version=stage_version("encoder"),
    deps=[pack, dg.AssetKey("probe_set"), dg.AssetKey("parent")],
    pool="gpu",
    kinds={"pytorch", "mlflow"},
)
def encoder(
    context: dg.AssetExecutionContext, profile: Profile, tracking: TrackingResource, training: TrainingProcess
) -> dg.MaterializeResult:
    """A backbone pretrained with the profile's objective; curves are live in MLflow, an interrupted run resumes."""
    settings = profile.settings()
    inputs = training_inputs(settings)
    data = {"pack": inputs.pack.content_hash, **data_versions(settings)}
    note = tracked_run(settings, inputs)
    with (
        tracking.retry_if_away(),
        live_run(settings, "pretraining", data, context.run.run_id, note) as live,
    ):
        try:
            product = pretrain(settings, inputs, sinks=(live,), start=training.start(context, before=live.begin))
        except Stopped as stopped:
            raise dg.Failure(f"training was {stopped}, with a checkpoint; materialize again to go on from it") from stopped
        names = ("loss_curve.png", "change_histogram.png", "change_gallery.png", "change_estimates.parquet", "metrics.jsonl")
        files = [file for name in (*names, "encoder.json") if (file := product.path / name).exists()]
        if product.reused and note.exists():
            # the encoder is complete, but the server or this process ended before its run was finished
            for line in read_metrics(product.path / METRICS):
                live.log(line.pop("step"), line)
        if live.run is not None:
            live.run.tag("encoder", product.content_hash)
            for file in files:
                live.run.file(file)
    # of abandoned trainings
    for stale in note.parent.glob(f"{note.name.partition('.run-')[0]}.run-*"):
        stale.unlink(missing_ok=True)
    pictures = {file.stem: picture(file, file.stem.replace("_", " ")) for file in files if file.suffix == ".png"}
    known = {**{f"data.{name}": md5 for name, md5 in data.items()}, "vintage": settings.vintage, "code_version": code_version()}
    return describe(product, **{name: dg.MetadataValue.text(value) for name, value in known.items()}, **pictures)


@dg.asset_check(asset=encoder, blocking=True)
def embeddings_have_not_collapsed(profile: Profile) -> dg.AssetCheckResult:
    """A collapsed encoder, whose embeddings are all alike, is blocked."""
    facts = recorded(profile.settings().paths.records, "encoder").facts
    spread = facts["embedding_std"]
    figures = {name: facts[name] for name in ("embedding_std", "queue_rank", "queue_cosine") if name in facts}
    return dg.AssetCheckResult(passed=not facts["collapsed"], metadata=figures, description=f"spread {spread:.3f} of 1")


@dg.asset(group_name="pretraining", code_version=stage_version("change_maps"), deps=[encoder], kinds={"pytorch"})
def change_maps(context: dg.AssetExecutionContext, profile: Profile, tracking: TrackingResource) -> dg.MaterializeResult:
    """Where each place has changed between its periods: a map and a score from the encoder, with accuracy where truth is known."""
    settings = profile.settings()
    packed, trained = (recorded(settings.paths.records, name) for name in ("pack", "encoder"))
    product = map_changes(settings, packed, trained, archive_shards(settings))
    with tracking.retry_if_away():
        if run_of(tracking.open(settings), "change_maps", product.content_hash, finished=True) is None:
            with live_run(settings, "change_maps", data_versions(settings), context.run.run_id) as live:
                live.log(0, {name: value for name, value in product.facts.items() if isinstance(value, float)})
                for name in ("gallery.png", "histogram.png", "figures.json", "change_maps.parquet"):
                    live.begin().file(product.path / name)
                live.begin().tag("change_maps", product.content_hash)
    pictures = {name: picture(product.path / f"{name}.png", f"change maps: {name}") for name in ("histogram", "gallery")}
    return describe(product, **pictures)


checks = [embeddings_have_not_collapsed]
