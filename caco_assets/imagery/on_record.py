"""Runs the imagery stages on the recorded products, for commands, assets and notebooks."""

from __future__ import annotations

from caco_assets.core.products import Product, recorded, verified
from caco_assets.imagery import stage
from caco_assets.settings import FolderSource, SecoLayoutSource, Settings, SyntheticSource


def plan(settings: Settings) -> Product:
    """Choose the scenes for every place, period and season: `stage.plan`.

    Raises:
        UserError: locations or catalog are missing; see `stage.plan` for the others.
    """
    return stage.plan(settings, verified(settings.paths.records, "locations"), _own_catalog(settings))


def ingest_shard(settings: Settings, shard: int) -> Product:
    """Read the chips of one shard into the archive: `stage.ingest_shard`. An imported shard is left unchanged.

    Raises:
        UserError: locations, scenes, catalog or the imported shard are missing; see `stage.ingest_shard` for the others.
    """
    from caco_assets.imagery.archive.shard import shard_name

    records = settings.paths.records
    if isinstance(settings.imagery.source, SecoLayoutSource):
        return recorded(records, f"archive/{shard_name(shard)}")  # `caco archive import` made it
    locations, scenes = (verified(records, name) for name in ("locations", "scenes"))
    return stage.ingest_shard(settings, shard, stage.ShardInputs(locations, scenes, _own_catalog(settings)))


def collect(settings: Settings) -> Product:
    """Gather the refusals of all shards, which closes the archive: `stage.collect`.

    Raises:
        UserError: a shard has not been ingested yet; see `stage.collect` for the others.
    """
    from caco_assets.imagery.archive.shard import shard_name

    records = settings.paths.records
    shards = range(recorded(records, "locations").facts["shards"])
    return stage.collect(settings, [recorded(records, f"archive/{shard_name(shard)}") for shard in shards])


def _own_catalog(settings: Settings) -> Product | None:
    """The catalog that was made for this profile; None: the settings name an external one."""
    own = isinstance(settings.imagery.source, SyntheticSource | FolderSource)
    return recorded(settings.paths.records, "catalog") if own else None
