"""Makes many shards of the archive, here or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from caco_assets.core.products import Product
from caco_assets.imagery.on_record import check_planned, ingest_shard
from caco_assets.observability.metrics import gauge
from caco_assets.settings import Settings


def ingest_shards(settings: Settings, shards: Sequence[int], *, retry: bool = False) -> Iterator[tuple[int, Product]]:
    """Make these shards with the launcher of `imagery.launcher`; yields each as it is finished.

    Args:
        settings: of the profile.
        shards: their numbers.
        retry: see `ingest_shard`.

    Raises:
        UserError: the scenes were chosen from another state of the source or the settings; see `ingest_shard` for the others.
    """
    check_planned(settings)
    if settings.imagery.launcher == "ray":
        from caco_assets.imagery.ingest.ray import ingest_on_ray

        yield from ingest_on_ray(settings, shards, partial(ingest_shard, retry=True) if retry else ingest_shard)
        return
    for done, shard in enumerate(shards):
        gauge("caco_shards_waiting", len(shards) - done)
        yield shard, ingest_shard(settings, shard, retry=retry)
    gauge("caco_shards_waiting", 0)
