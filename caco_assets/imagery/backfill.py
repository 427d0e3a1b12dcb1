"""Makes many shards of the archive, here or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from caco_assets.core.products import Product
from caco_assets.imagery.on_record import ingest_shard
from caco_assets.observability.metrics import gauge
from caco_assets.settings import Settings


def ingest_shards(settings: Settings, shards: Sequence[int]) -> Iterator[tuple[int, Product]]:
    """Make these shards with the launcher of `imagery.launcher`; yields each as it is finished.

    Raises:
        UserError: see `ingest_shard`.
    """
    if settings.imagery.launcher == "ray":
        from caco_assets.imagery.ingest.ray import ingest_on_ray

        yield from ingest_on_ray(settings, shards, ingest_shard)
        return
    for done, shard in enumerate(shards):
        gauge("caco_shards_waiting", len(shards) - done)
        yield shard, ingest_shard(settings, shard)
    gauge("caco_shards_waiting", 0)
