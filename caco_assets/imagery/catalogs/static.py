"""Catalogs on disk: a stac-geoparquet file, or items linked from a `catalog.json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from caco_assets.core.errors import UserError, one_line
from caco_assets.imagery.catalogs.catalog import Box, Catalog, pieces
from caco_assets.imagery.catalogs.parquet import ParquetCatalog
from caco_assets.imagery.scenes.periods import Interval
from caco_assets.imagery.scenes.scene_table import in_order, scenes_of, within
from caco_assets.imagery.scenes.stac_geoparquet import batches, scenes_from_columns

ITEMS = "items.parquet"
"""The catalog's items as stac-geoparquet; relative hrefs in it start at the catalog's folder."""
HELD_ROWS = 20_000
"""An index of at most this many items is held in memory; a longer one is streamed."""


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
            bands: required of each item.
            scratch: folder for the sorted parts of a long index; default: the system's.

        Raises:
            UserError: none of these exists.
        """
        for file in (path, path / ITEMS):
            if file.is_file():
                return _open_index(file, bands, scratch)
        for name in ("catalog.json", "collection.json"):
            if (path / name).exists():
                return cls.of(walk_items(path / name), bands)
        raise UserError(f"{path}: no catalog there (neither {ITEMS} nor catalog.json); make it with `caco catalog make`")

    def search_many(self, boxes: Sequence[Box], spans: Sequence[Interval]) -> Iterator[pa.Table]:
        """See `Catalog.search_many`."""
        for box in boxes:
            hits = [self._tree.query(shapely.box(*piece), predicate="intersects") for piece in pieces(box)]
            yield within(self._scenes.take(np.unique(np.concatenate(hits))), spans)


def walk_items(path: Path) -> Iterator[dict[str, Any]]:
    """Items as JSON below a `catalog.json` or `collection.json`; hrefs become absolute."""
    import pystac

    for item in pystac.read_file(path).get_items(recursive=True):  # pyright: ignore[reportAttributeAccessIssue]
        yield item.make_asset_hrefs_absolute().to_dict(include_self_link=False, transform_hrefs=False)


def _open_index(file: Path, bands: tuple[str, ...], scratch: Path | None) -> Catalog:
    try:
        count = pq.read_metadata(file).num_rows
        if count > HELD_ROWS:
            return ParquetCatalog(file, bands, scratch)
        refused: dict[str, str] = {}
        tables = list(batches(file, HELD_ROWS))
        return StaticCatalog(in_order(scenes_from_columns(pa.concat_tables(tables), bands, refused)), refused)
    except (pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"{file}: not readable as stac-geoparquet ({one_line(error, 200)})") from error
