"""Dagster assets of sampling: the places."""

import dagster as dg

from caco_assets.core.stage_versions import stage_version
from caco_assets.resources.dagster.metadata import describe, picture
from caco_assets.resources.dvc.commit import DataVersions
from caco_assets.resources.profile import Profile
from caco_assets.sampling.partitions import shard_key
from caco_assets.sampling.stage import sample


@dg.asset(group_name="sampling", code_version=stage_version("locations"), kinds={"geoparquet"})
def locations(context: dg.AssetExecutionContext, profile: Profile, versions: DataVersions) -> dg.MaterializeResult:
    """Places on the Earth, drawn around cities on land, without overlap; growing their number keeps the first ones."""
    from caco_assets.sampling.map import spread, world_map

    settings = profile.settings()
    product = sample(settings)
    versions.commit(settings, "locations")
    context.instance.add_dynamic_partitions("shards", [shard_key(shard) for shard in range(product.facts["shards"])])
    return describe(
        product,
        map=picture(world_map(product.path), "places on the world map"),
        spread=picture(spread(product.path), "places by country, latitude and distance to their city"),
    )
