"""Shards of locations as Dagster partitions."""

import dagster as dg

from caco_assets.resources.dagster.tags import PARTITION_RANGE_END, PARTITION_RANGE_START
from caco_assets.settings import Settings

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
"""A shard of places: the unit of work, retry, resume and distribution. `locations` adds them."""


def shard_key(shard: int) -> str:
    """Partition key of a shard: the name of its folder in the archive."""
    return f"{shard:04d}"


def shard_range_tags(settings: Settings) -> dict[str, str]:
    """Run tags that make one run cover every shard."""
    return {PARTITION_RANGE_START: shard_key(0), PARTITION_RANGE_END: shard_key(settings.shards - 1)}


def announce_shards(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Add the partitions before launching a run that covers them."""
    instance.add_dynamic_partitions(str(SHARDS.name), [shard_key(shard) for shard in range(settings.shards)])
