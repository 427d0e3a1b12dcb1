"""Assets of the room `sampling`."""

import dagster as dg

from caco_assets.core.stage_versions import recipe
from caco_assets.resources.describe import describe, picture
from caco_assets.resources.dvc import DataVersions
from caco_assets.resources.profile import Profile
from caco_assets.sampling.stage import sample

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
"""A shard of places: the unit of work, retry, resume and distribution. `locations` announces them."""


def shard_key(shard: int) -> str:
    """Partition key of a shard: the name of its folder in the archive."""
    return f"{shard:04d}"


@dg.asset(group_name="sampling", code_version=recipe("locations"), kinds={"geoparquet"})
def locations(context: dg.AssetExecutionContext, profile: Profile, versions: DataVersions) -> dg.MaterializeResult:
    """Places on the Earth, drawn around cities on land, without overlap; growing their number keeps the first ones."""
    from caco_assets.sampling.map import spread, world_map

    settings = profile.settings()
    product = sample(settings, context.log.info)
    versions.commit(settings, "locations")
    context.instance.add_dynamic_partitions("shards", [shard_key(shard) for shard in range(product.facts["shards"])])
    return describe(
        product,
        map=picture(world_map(product.path), "places on the world map"),
        spread=picture(spread(product.path), "places by country, latitude and distance to their city"),
    )
