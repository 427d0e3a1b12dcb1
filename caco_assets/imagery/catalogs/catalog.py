"""Where scenes are looked up: one protocol, and the catalogs on disk behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import shapely

from caco_assets.core.errors import UserError
from caco_assets.imagery.scenes.periods import Interval
from caco_assets.imagery.scenes.scene_table import in_order, scenes_in, scenes_of, within
from caco_assets.imagery.scenes.stac_item import Scene
from caco_assets.settings import CatalogSource, Settings, StacApiSource

ITEMS = "items.parquet"
"""The catalog's items as stac-geoparquet; relative hrefs in it start at the catalog's folder."""
HELD_ROWS = 20_000
"""An index of at most so many items is held in memory; a longer one is streamed."""
Box = tuple[float, float, float, float]
"""west, south, east, north in degrees; west > east reaches across the antimeridian."""


class Catalog(Protocol):
    """Finds scenes."""

    refused: dict[str, str]
    """Items met so far that cannot serve: id → reason."""

    def sweep(self, boxes: Sequence[Box], spans: Sequence[Interval]) -> Iterator[pa.Table]:
        """For each box, in the order given, the scenes that may meet it and whose time lies in one of the half-open intervals.

        Tables have the columns of `scenes.SCENES`, sorted by time and id, each item once. Boxes that lie near each other should
        stand near each other.

        Raises:
            UserError: the catalog cannot be read, or does not answer.
        """
        ...

    def search(self, box: Box, interval: Interval) -> list[Scene]:
        """The scenes of one box and one interval, as objects."""
        return [scene for table in self.sweep([box], [interval]) for scene in scenes_in(table)]


class StaticCatalog(Catalog):
    """Scenes held in memory, with a spatial index."""

    def __init__(self, scenes: pa.Table, refused: dict[str, str]) -> None:
        self.refused = refused
        self._scenes = scenes
        self._tree = shapely.STRtree(shapely.from_wkb(scenes["geometry"].to_numpy()))

    @classmethod
    def of(cls, items: Iterable[dict[str, Any]], bands: tuple[str, ...]) -> StaticCatalog:
        """From STAC items as JSON."""
        refused: dict[str, str] = {}
        return cls(scenes_of(items, bands, refused), refused)

    @classmethod
    def open(cls, path: Path, bands: tuple[str, ...], scratch: Path | None = None) -> Catalog:
        """A catalog on disk.

        Args:
            path: a stac-geoparquet file, or a folder with `items.parquet` or else items linked from `catalog.json`.
            bands: that items must have.
            scratch: folder for what a long index is sorted into; default: the system's.

        Raises:
            UserError: there is none of these.
        """
        for file in (path, path / ITEMS):
            if file.is_file():
                return _open_index(file, bands, scratch)
        for name in ("catalog.json", "collection.json"):
            if (path / name).exists():
                return cls.of(walk_items(path / name), bands)
        raise UserError(f"{path}: no catalog there (neither {ITEMS} nor catalog.json); make it with `caco catalog make`")

    def sweep(self, boxes: Sequence[Box], spans: Sequence[Interval]) -> Iterator[pa.Table]:
        """See `Catalog.sweep`."""
        for box in boxes:
            hits = [self._tree.query(shapely.box(*piece), predicate="intersects") for piece in pieces(box)]
            yield within(self._scenes.take(np.unique(np.concatenate(hits))), spans)


def open_catalog(settings: Settings) -> Catalog:
    """The catalog that the settings name."""
    imagery = settings.imagery
    if isinstance(imagery.source, StacApiSource):
        from caco_assets.imagery.catalogs.stac_api import StacApi

        return StacApi(imagery.source, imagery.bands, imagery.max_scene_cloud, settings.paths.cache / "stac_api")
    source = imagery.source
    path = source.path if isinstance(source, CatalogSource) else settings.paths.catalog
    return StaticCatalog.open(path, imagery.bands, settings.paths.cache)


def catalog_folder(settings: Settings) -> Path:
    """The folder that relative hrefs start at."""
    source = settings.imagery.source
    if not isinstance(source, CatalogSource):
        return settings.paths.catalog
    return source.path.parent if source.path.suffix == ".parquet" else source.path


def walk_items(path: Path) -> Iterator[dict[str, Any]]:
    """Items as JSON below a `catalog.json` or `collection.json`; hrefs become absolute."""
    import pystac

    for item in pystac.read_file(path).get_items(recursive=True):  # pyright: ignore[reportAttributeAccessIssue]
        yield item.make_asset_hrefs_absolute().to_dict(include_self_link=False, transform_hrefs=False)


def pieces(box: Box) -> list[Box]:
    """A box with west > east reaches across the antimeridian: its two parts."""
    west, south, east, north = box
    return [box] if west <= east else [(west, south, 180.0, north), (-180.0, south, east, north)]


def _open_index(file: Path, bands: tuple[str, ...], scratch: Path | None) -> Catalog:
    import pyarrow.parquet as pq

    from caco_assets.imagery.catalogs.parquet import ParquetCatalog
    from caco_assets.imagery.scenes.stac_geoparquet import batches, scenes_from_columns

    try:
        count = pq.read_metadata(file).num_rows
        if count > HELD_ROWS:
            return ParquetCatalog(file, bands, scratch)
        refused: dict[str, str] = {}
        tables = list(batches(file, HELD_ROWS))
        return StaticCatalog(in_order(scenes_from_columns(pa.concat_tables(tables), bands, refused)), refused)
    except (pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"{file}: not readable as stac-geoparquet ({' '.join(str(error).split())[:200]})") from error
