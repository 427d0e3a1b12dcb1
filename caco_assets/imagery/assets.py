"""Dagster assets of imagery: catalog, scenes, archive and quarantine."""

import warnings

import dagster as dg

from caco_assets.core.stage_versions import stage_version
from caco_assets.imagery.backfill import ingest_shards
from caco_assets.imagery.on_record import collect, plan
from caco_assets.imagery.stage import index_folder
from caco_assets.resources.dagster.metadata import describe, facts, picture
from caco_assets.resources.dvc.commit import DataVersions
from caco_assets.resources.profile import Profile
from caco_assets.sampling.assets import locations
from caco_assets.sampling.partitions import SHARDS

# backfill policies are beta in dagster, whose version the lock pins
warnings.filterwarnings("ignore", category=dg.BetaWarning)


@dg.asset(group_name="imagery", code_version=stage_version("catalog"), deps=[locations], kinds={"stac"})
def catalog(profile: Profile) -> dg.MaterializeResult:
    """A folder of GeoTIFFs indexed as a static STAC catalog; unreadable files are listed with their reason."""
    return describe(index_folder(profile.settings()))


@dg.asset(group_name="imagery", code_version=stage_version("scenes"), deps=[locations, dg.AssetKey("catalog")], kinds={"parquet"})
def scenes(profile: Profile, versions: DataVersions) -> dg.MaterializeResult:
    """Which scene serves each place, period and season, with fallbacks in the order in which they are tried."""
    settings = profile.settings()
    product = plan(settings)
    versions.commit(settings, "scenes")
    return describe(product)


@dg.asset(
    group_name="imagery",
    code_version=stage_version("archive"),
    deps=[locations, scenes],
    partitions_def=SHARDS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL),
    pool="imagery",
    kinds={"geotiff"},
)
def archive(context: dg.AssetExecutionContext, profile: Profile) -> dg.MaterializeResult:
    """Chips of the shard's places: clear, harmonised reflectance on one grid, in one tar with an index of byte ranges."""
    settings = profile.settings()
    keys = {int(key): key for key in context.partition_keys}
    for shard, product in ingest_shards(settings, list(keys)):
        key = keys[shard]
        context.add_asset_metadata({**facts(product.facts), "content_hash": product.content_hash}, partition_key=key)
    return dg.MaterializeResult()


@dg.asset(
    group_name="imagery",
    code_version=stage_version("archive"),
    deps=[dg.AssetDep(archive, partition_mapping=dg.AllPartitionMapping())],
    kinds={"parquet"},
)
def quarantine(profile: Profile, versions: DataVersions) -> dg.MaterializeResult:
    """Every chip refused and every place that could not be served, with the reason; the whole archive is versioned here."""
    from caco_assets.imagery.archive.preview import chips_preview

    settings = profile.settings()
    product = collect(settings)
    hashes = versions.commit(settings, "archive")
    archive_hash = hashes[settings.paths.archive.relative_to(settings.home).as_posix()]
    preview = picture(chips_preview(settings.paths.archive), "chips of a few places over the dates")
    # later stages read the archive, which includes the refusals: its hash, not theirs, shows whether anything has changed
    return describe(product, archive_hash, archive_hash=dg.MetadataValue.text(archive_hash), chips=preview)
