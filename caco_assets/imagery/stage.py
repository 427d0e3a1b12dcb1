"""The stages `catalog` (of a folder), `scenes`, `archive` and `quarantine`."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts, Product, content_hash, fingerprint, produce, recorded
from caco_assets.core.stage_versions import stage_version
from caco_assets.observability.logs import bound
from caco_assets.observability.metrics import count, observe
from caco_assets.settings import CatalogSource, FolderSource, SecoLayoutSource, Settings, StacApiSource

if TYPE_CHECKING:
    import pyarrow as pa

    from caco_assets.imagery.ingest.place import Place
    from caco_assets.imagery.ingest.source_files import State

logger = logging.getLogger(__name__)

_REASONS = 20
"""Different reasons that are listed."""
_LINE = 2000
"""Characters of a line of reasons, some of which hold names of foreign fields."""


def index_folder(settings: Settings) -> Product:
    """Index the profile's folder of GeoTIFFs as a static STAC catalog.

    Raises:
        UserError: the profile's source is not a folder, or the folder cannot be used; the message says why.
    """
    source = settings.imagery.source
    if not isinstance(source, FolderSource):
        raise UserError(f"imagery.source.kind={source.kind}: only a folder of GeoTIFFs is indexed here")
    from caco_assets.imagery.catalogs.folder import files_say, list_files
    from caco_assets.imagery.catalogs.folder import index_folder as write_catalog
    from caco_assets.imagery.ingest.source_files import file_state, is_changed, read_note, write_note

    paths = list_files(source)
    states, said = {path.name: file_state(path) for path in paths}, files_say(source, paths)
    records, note = settings.paths.records, settings.paths.records / "catalog.files"

    def make(path: Path) -> Facts:
        shutil.rmtree(path, ignore_errors=True)
        return write_catalog(source, path)

    def product() -> Product:
        return produce(
            "catalog",
            settings.paths.catalog,
            records=records,
            recipe=stage_version("catalog"),
            inputs=_folder_inputs(source, states, said),
            make=make,
        )

    found = product()
    noted = read_note(note, found.fingerprint)
    if found.reused and noted is not None:
        old, refused = noted
        repaired = [name for name in sorted(refused) if is_changed(old.get(name), states.get(name), refused=True)]
        if not repaired:
            return found
        logger.info(f"catalog: {len(repaired)} refused files have been written again ({repaired[0]}, …): the folder is read again")
        (records / "catalog.json").unlink(missing_ok=True)
        found = product()
    write_note(note, found.fingerprint, states, found.facts["refused_files"])
    return found


def is_indexed(settings: Settings, catalog: Product) -> bool:
    """Whether `catalog` was made from the profile's folder as it is now; True for other sources."""
    source = settings.imagery.source
    if not isinstance(source, FolderSource):
        return True
    from caco_assets.imagery.catalogs.folder import files_say, list_files
    from caco_assets.imagery.ingest.source_files import file_state

    paths = list_files(source)
    states = {path.name: file_state(path) for path in paths}
    return catalog.fingerprint == fingerprint(stage_version("catalog"), _folder_inputs(source, states, files_say(source, paths)))


def _folder_inputs(source: FolderSource, states: Mapping[str, State], said: Any) -> dict[str, Any]:
    files = [(name, *(state or [0, 0])[:2]) for name, state in states.items()]
    return {"source": source.model_dump(mode="json"), "files": files, **({"files_say": said} if said else {})}


@dataclass(frozen=True)
class ShardInputs:
    """The products that the shards of an archive are made from."""

    locations: Product
    scenes: Product
    catalog: Product | None
    """None: the settings name an external catalog."""


def plan(settings: Settings, locations: Product, catalog: Product | None) -> Product:
    """Choose the scenes for every place, period and season, and write `scenes.parquet`.

    Args:
        settings: of the profile.
        locations: the places.
        catalog: the profile's own; None: the settings name an external one.

    Raises:
        UserError: the imagery is an imported archive, the catalog cannot be read, or it has no usable scene.
    """
    imagery = settings.imagery
    if isinstance(imagery.source, SecoLayoutSource):
        raise UserError("imagery.source.kind=seco_layout: an imported archive has no scenes to choose; continue with `caco pack`")

    def make(path: Path) -> Facts:
        return _plan(settings, locations, path)

    return produce(
        "scenes",
        settings.paths.scenes,
        records=settings.paths.records,
        recipe=stage_version("scenes"),
        inputs=_plan_inputs(settings, locations, catalog),
        make=make,
    )


def is_planned(settings: Settings, scenes: Product, locations: Product, catalog: Product | None) -> bool:
    """Whether `scenes` was chosen from the places, the catalog and the settings as they are now."""
    return scenes.fingerprint == fingerprint(stage_version("scenes"), _plan_inputs(settings, locations, catalog))


def _plan_inputs(settings: Settings, locations: Product, catalog: Product | None) -> dict[str, Any]:
    imagery = settings.imagery
    return {
        "locations": locations.content_hash,
        "catalog": _catalog_identity(settings, catalog),
        "calendar": [settings.vintage, settings.gap_years, imagery.period_months, imagery.seasons],
        "chip": [imagery.chip_size, imagery.resolution, imagery.bands],
        "limits": [imagery.max_scene_cloud, imagery.candidates],
    }


def ingest_shard(settings: Settings, shard: int, inputs: ShardInputs, *, retry: bool = False) -> Product:
    """Read the chips of one shard into the archive, atomically.

    A finished shard is made again where a local file that it was read from has changed since.

    Args:
        settings: of the profile.
        shard: its number.
        inputs: what it is made from.
        retry: make a finished shard again if it lacks chips whose files could not be read.

    Raises:
        UserError: there is no such shard, or the provider does not serve its files.
    """
    shards = inputs.locations.facts["shards"]
    if not 0 <= shard < shards:
        raise UserError(f"shard={shard}: there are {shards} shards, 0 to {shards - 1}")
    start = time.monotonic()
    with bound(profile=settings.profile, vintage=settings.vintage, shard=f"{shard:04d}"):
        try:
            product = _ingest_shard(settings, shard, inputs, retry=retry)
        except BaseException:
            count("caco_shards", outcome="failed")
            raise
    count("caco_shards", outcome="unchanged" if product.reused else "made")
    if not product.reused:
        observe("caco_shard_seconds", time.monotonic() - start)
        count("caco_archived_bytes", product.facts.get("bytes", 0))
    return product


def _ingest_shard(settings: Settings, shard: int, inputs: ShardInputs, *, retry: bool) -> Product:
    from caco_assets.core.file_lock import file_lock
    from caco_assets.imagery.archive.shard import rows_hash, shard_name
    from caco_assets.imagery.ingest.reuse import has_note, reusable_outcomes, write_reuse_note
    from caco_assets.imagery.ingest.shard_sources import ShardSources
    from caco_assets.imagery.planning.scenes_parquet import read_scenes

    imagery, table = settings.imagery, read_scenes(inputs.scenes.path, shard)
    records, name = settings.paths.records, f"archive/{shard_name(shard)}"
    chip = [imagery.chip_size, imagery.resolution, imagery.bands]
    formats = getattr(imagery.source, "formats", ())
    # only where they matter, so that other archives stay valid
    unusual = {"formats": formats} if formats else {}
    if _declares_nodata(table):
        unusual["gaps"] = "a pixel without data in one band has none in any"
    reading = {"recipe": stage_version("archive"), "chip": chip, "min_clear": imagery.min_clear, **unusual}
    note, target = records / f"{name}.read", settings.paths.archive / shard_name(shard)
    rows = table.to_pylist()
    sources = ShardSources.of(settings, records / f"{name}.files", rows)
    earlier: Product | None = None

    def make(path: Path) -> Facts:
        from caco_assets.core.raster_drivers import DRIVERS
        from caco_assets.imagery.archive.manifest import stored_at
        from caco_assets.imagery.catalogs.open import catalog_folder
        from caco_assets.imagery.catalogs.signing import signer
        from caco_assets.imagery.ingest.fill_shard import Concurrency, ShardJob, fill_shard, journal_folder
        from caco_assets.imagery.reading.scene_reader import Want

        places = _places(settings, inputs.locations, shard)
        same = [row for row in rows if row["item_id"] not in sources.changed]
        started = journal_folder(path) / "files.json"
        job = ShardJob(
            shard=shard,
            places=places,
            rows=rows,
            want=Want(imagery.bands, imagery.min_clear, catalog_folder(settings), signer(settings), (*DRIVERS, *formats)),
            min_seasons=imagery.min_seasons,
            concurrency=Concurrency(imagery.workers, imagery.connections),
            reused=reusable_outcomes(note, earlier, reading, same, places),
            changed=sources.begin(started),
            limits=imagery.limits,
            root=stored_at(settings, shard),
        )
        return fill_shard(path, job)

    with file_lock(records / f"{name}.lock", name):
        record = records / f"{name}.json"
        earlier = recorded(records, name) if record.exists() else None
        if earlier is not None and target.exists():
            sources.compare(earlier.fingerprint)
            again = sources.why_again(target, retry=retry)
            if again:
                logger.info(f"shard {shard:04d}: {again}: it is made again")
                record.unlink()
        product = produce(
            name,
            target,
            records=records,
            recipe=stage_version("archive"),
            inputs={
                # the shard's own rows: places that join other shards do not change it
                "scenes": rows_hash(table),
                "catalog": _catalog_identity(settings, inputs.catalog),
                "chip": chip,
                "min_clear": imagery.min_clear,
                "min_seasons": imagery.min_seasons,
                **unusual,
            },
            make=make,
        )
        if not product.reused or not sources.is_noted(product.fingerprint):
            sources.write(product)
        # a file of a folder may change under its name, and is cheap to read again
        if not isinstance(imagery.source, FolderSource) and not has_note(note, product):
            write_reuse_note(note, product, reading, rows, _places(settings, inputs.locations, shard))
        return product


def collect(settings: Settings, shards: Sequence[Product]) -> Product:
    """Gather the refusals of all shards in `quarantine.parquet`; its facts describe the whole archive.

    Other shards (of a run with more places) are removed, so that nothing stale is read.

    Args:
        settings: of the profile.
        shards: every shard of the archive, by number.

    Raises:
        UserError: the object store of the settings rejects the archive's manifest, or the archive has no chip: the message gives
            the main reason, and the refusals are written nevertheless.
    """
    from caco_assets.core.parquet import read_parquet
    from caco_assets.imagery.archive.manifest import publish
    from caco_assets.imagery.archive.refusals import REFUSAL_ADVICE, main_reason, read_refusals
    from caco_assets.imagery.archive.shard import QUARANTINE, shard_folders

    records, names = settings.paths.records, {shard.path.name for shard in shards}
    for folder in shard_folders(settings.paths.archive):
        if folder.name not in names:
            logger.info(f"archive: {folder.name} belongs to an earlier run with more places; removed")
            shutil.rmtree(folder)
            (records / "archive" / f"{folder.name}.json").unlink(missing_ok=True)

    if settings.imagery.archive is not None:
        publish(settings, shards)

    def make(path: Path) -> Facts:
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = [read_parquet(shard.path / QUARANTINE, advice=REFUSAL_ADVICE) for shard in shards]
        pq.write_table(pa.concat_tables(tables), path, compression="zstd")
        return _archive_facts([shard.facts for shard in shards])

    product = produce(
        "quarantine",
        settings.paths.quarantine,
        records=records,
        recipe=stage_version("archive"),
        inputs={"shards": [shard.content_hash for shard in shards]},
        make=make,
    )
    if not product.facts["chips"]:
        why = main_reason(read_refusals(product.path)) or "no place was drawn; change the section sampling"
        raise UserError(f"archive: not one chip of {product.facts['places']} places: {why}")
    return product


def _plan(settings: Settings, locations: Product, path: Path) -> Facts:
    import pyarrow.parquet as pq

    from caco_assets.imagery.catalogs.open import open_catalog
    from caco_assets.imagery.planning.plan import Sites, write_plan
    from caco_assets.imagery.planning.ranking import Limits
    from caco_assets.imagery.scenes.periods import period_windows

    imagery = settings.imagery
    table = pq.read_table(locations.path, columns=["location_id", "lon", "lat", "shard"])
    ids, lon, lat, shards = (table[name].to_numpy() for name in table.column_names)
    sites = Sites.of(ids, lon, lat, shards, imagery.chip_size, imagery.resolution)
    catalog = open_catalog(settings)
    windows = period_windows(settings.vintage, settings.gap_years, imagery.period_months, imagery.seasons)
    limits = Limits(imagery.max_scene_cloud, imagery.candidates)
    facts = write_plan(path, sites, catalog, windows, limits, settings.paths.cache / "planning")
    reasons = dict(Counter(catalog.refused.values()).most_common(_REASONS))
    if reasons:
        listed = "; ".join(f"{number} because each {reason}" for reason, number in reasons.items())
        logger.warning(f"scenes: {len(catalog.refused)} items of the catalog cannot be used: {listed}"[:_LINE])
    if not facts["candidates"]:
        raise UserError(_no_scene(settings, windows, catalog.refused))
    logger.info(
        f"scenes: {facts['scenes']} near {len(ids)} places; of their dates {facts['planned']} planned, "
        f"{facts['widened']} taken from outside the season, {facts['missing']} without a scene"
    )
    return {
        "places": len(ids),
        "cells": facts["cells"],
        "scenes": facts["scenes"],
        "candidates": facts["candidates"],
        **{f"slots_{name}": facts[name] for name in ("planned", "widened", "missing")},
        "refused_items": len(catalog.refused),
        "refused_items_by_reason": reasons,
        "refused_item_reasons": dict(sorted(catalog.refused.items())[:20]),
    }


def _places(settings: Settings, locations: Product, shard: int) -> list[Place]:
    """The places of one shard with their grids, by location id."""
    import pyarrow.parquet as pq

    from caco_assets.imagery.geometry.chip_grid import chip_grids
    from caco_assets.imagery.ingest.place import Place

    table = pq.read_table(locations.path, columns=["location_id", "lon", "lat"], filters=[("shard", "=", shard)])
    lon, lat = (table[name].to_numpy() for name in ("lon", "lat"))
    grids = chip_grids(lon, lat, settings.imagery.chip_size, settings.imagery.resolution)
    rows = zip(table["location_id"].to_pylist(), lon.tolist(), lat.tolist(), grids, strict=True)
    return [Place(*row) for row in rows]


def _declares_nodata(scenes: pa.Table) -> bool:
    """Whether a value other than 0 means no data in any of the scenes."""
    return any(value not in (None, 0) for value in scenes["nodata"].unique().to_pylist())


def _catalog_identity(settings: Settings, catalog: Product | None) -> Any:
    """What identifies the catalog's content in a fingerprint."""
    source = settings.imagery.source
    if isinstance(source, StacApiSource):
        return [source.url, source.collection]
    if isinstance(source, CatalogSource):
        from caco_assets.imagery.catalogs.static import ITEMS

        files = [source.path, *(source.path / name for name in (ITEMS, "catalog.json", "collection.json"))]
        return [str(source.path), *(content_hash(file) for file in files if file.is_file())]
    if catalog is None:
        raise ValueError(f"imagery.source.kind={source.kind}: needs the catalog that was made for it")
    # the fingerprint of a folder's catalog holds the files' sizes and times: its items alone would not show new pixels
    return [catalog.content_hash, catalog.fingerprint] if isinstance(source, FolderSource) else catalog.content_hash


def _archive_facts(shards: list[Facts]) -> Facts:
    refused: dict[str, int] = {}
    for facts in shards:
        for reason, number in facts["refused"].items():
            refused[reason] = refused.get(reason, 0) + number
    counted = ("places", "places_complete", "chips", "taken_over", "widened", "bytes")
    # an imported archive reuses no chips
    total = {name: sum(facts.get(name, 0) for facts in shards) for name in counted}
    clear = sum(facts["clear_fraction"] * facts["chips"] for facts in shards) / max(total["chips"], 1)
    return {"shards": len(shards), **total, "clear_fraction": round(clear, 4), "refused": dict(sorted(refused.items()))}


def _no_scene(settings: Settings, windows: Any, refused: dict[str, str]) -> str:
    (early, _), (late, _) = windows[0][0], windows[1][0]
    why = ""
    if refused:
        ((reason, number),) = Counter(refused.values()).most_common(1)
        why = f"; {len(refused)} items cannot be used, {'each' if number == len(refused) else number} because it {reason}"
    return (
        f"imagery.source.kind={settings.imagery.source.kind}: no scene near the places in the "
        f"{settings.imagery.period_months} months from {early:%Y-%m-%d} and from {late:%Y-%m-%d}{why}; "
        "change vintage, gap_years, imagery.period_months or sampling.region"
    )
