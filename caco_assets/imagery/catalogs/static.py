"""Catalogs on disk: a stac-geoparquet file, or items linked from a `catalog.json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from caco_assets.core.errors import UserError
from caco_assets.core.parquet import reading_parquet
from caco_assets.imagery.catalogs.catalog import Box, Catalog, pieces
from caco_assets.imagery.catalogs.linked import walk_items
from caco_assets.imagery.catalogs.parquet import FORM, INDEX_ADVICE, ParquetCatalog
from caco_assets.imagery.scenes.periods import Interval
from caco_assets.imagery.scenes.scene_table import SCENES, in_order, scenes_of, within
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
                refused: dict[str, str] = {}
                return cls(scenes_of(walk_items(path / name, refused), bands, refused), refused)
        raise UserError(f"{path}: no catalog there (neither {ITEMS} nor catalog.json); make it with `caco catalog make`")

    def search_many(self, boxes: Sequence[Box], spans: Sequence[Interval]) -> Iterator[pa.Table]:
        """See `Catalog.search_many`."""
        for box in boxes:
            hits = [self._tree.query(shapely.box(*piece), predicate="intersects") for piece in pieces(box)]
            yield within(self._scenes.take(np.unique(np.concatenate(hits))), spans)


def _open_index(file: Path, bands: tuple[str, ...], scratch: Path | None) -> Catalog:
    refused: dict[str, str] = {}
    with reading_parquet(file, INDEX_ADVICE, FORM):
        if pq.read_metadata(file).num_rows > HELD_ROWS:
            return ParquetCatalog(file, bands, scratch)
        tables = [scenes_from_columns(batch, bands, refused) for batch in batches(file, HELD_ROWS)]
        return StaticCatalog(in_order(pa.concat_tables([SCENES.empty_table(), *tables])), refused)
