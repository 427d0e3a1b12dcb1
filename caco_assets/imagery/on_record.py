"""Runs the imagery stages on the recorded products, for commands, assets and notebooks."""

from __future__ import annotations

import logging

from caco_assets.core.errors import UserError
from caco_assets.core.file_lock import file_lock
from caco_assets.core.products import Product, recorded, verified
from caco_assets.imagery import stage
from caco_assets.settings import FolderSource, SecoLayoutSource, Settings, SyntheticSource

logger = logging.getLogger(__name__)


def plan(settings: Settings) -> Product:
    """Choose the scenes for every place, period and season: `stage.plan`.

    Raises:
        UserError: locations or catalog are missing; see `stage.plan` for the others.
    """
    return stage.plan(settings, verified(settings.paths.records, "locations"), _own_catalog(settings))


def plan_again_if_changed(settings: Settings) -> None:
    """Choose the scenes again where the folder, the catalog, the places or the settings have changed since they were chosen.

    Raises:
        UserError: locations, catalog or scenes are missing; see `stage.plan` for the others.
    """
    if isinstance(settings.imagery.source, SecoLayoutSource):
        return
    records = settings.paths.records
    recorded(records, "scenes")
    with file_lock(records / "scenes.lock", "scenes"):
        if isinstance(settings.imagery.source, FolderSource):
            stage.index_folder(settings)
        current = _is_planned(settings)
        # also where the file itself is no longer what was made
        if not plan(settings).reused:
            why = "its file was not what its record says" if current else "the imagery's source or the settings have changed"
            logger.warning(f"scenes: {why}: chosen again")


def check_planned(settings: Settings) -> None:
    """Check that the scenes were chosen from the folder, the catalog, the places and the settings as they are now.

    Raises:
        UserError: they were not, or a product is missing.
    """
    if isinstance(settings.imagery.source, SecoLayoutSource):
        return
    if not _is_planned(settings):
        raise UserError(
            "scenes: the imagery's source or the settings have changed since the scenes were chosen; materialize the assets "
            "`catalog` and `scenes` again, or run `caco plan`"
        )


def _is_planned(settings: Settings) -> bool:
    locations, scenes = (recorded(settings.paths.records, name) for name in ("locations", "scenes"))
    catalog = _own_catalog(settings)
    indexed = catalog is None or stage.is_indexed(settings, catalog)
    return indexed and stage.is_planned(settings, scenes, locations, catalog)


def ingest_shard(settings: Settings, shard: int, *, retry: bool = False) -> Product:
    """Read the chips of one shard into the archive: `stage.ingest_shard`. An imported shard is left unchanged.

    Raises:
        UserError: locations, scenes, catalog or the imported shard are missing; see `stage.ingest_shard` for the others.
    """
    from caco_assets.imagery.archive.shard import shard_name

    records = settings.paths.records
    if isinstance(settings.imagery.source, SecoLayoutSource):
        return recorded(records, f"archive/{shard_name(shard)}")  # `caco archive import` made it
    locations, scenes = (verified(records, name) for name in ("locations", "scenes"))
    return stage.ingest_shard(settings, shard, stage.ShardInputs(locations, scenes, _own_catalog(settings)), retry=retry)


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
