"""An index of millions of items in one stac-geoparquet file: read once, sorted on disk by location, never held in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import batched
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from caco_assets.core.parquet import reading_parquet
from caco_assets.imagery.catalogs.catalog import Box, Catalog, pieces
from caco_assets.imagery.scenes.periods import Interval
from caco_assets.imagery.scenes.scene_table import SCENES, in_order, inside, within
from caco_assets.imagery.scenes.stac_geoparquet import batches, scenes_from_columns

FORM, INDEX_ADVICE = "stac-geoparquet", "write the index again, or name another"
BATCH_ROWS = 8192
"""Items read at once: some 15 MB of them."""
BOXES_PER_BIN = 16
"""Boxes whose scenes share a file: neighbors share scenes, and a file is read in full."""


class ParquetCatalog(Catalog):
    """A stac-geoparquet file, in any order of rows."""

    def __init__(self, file: Path, bands: tuple[str, ...], scratch: Path | None = None) -> None:
        self.refused: dict[str, str] = {}
        self._file, self._bands, self._scratch = file, bands, scratch

    def search_many(self, boxes: Sequence[Box], spans: Sequence[Interval]) -> Iterator[pa.Table]:
        """See `Catalog.search_many`."""
        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="index-", dir=self._scratch) as folder:
            with reading_parquet(self._file, INDEX_ADVICE, FORM):
                self._sort_into(Path(folder), boxes, spans)
            for number, group in enumerate(batched(boxes, BOXES_PER_BIN)):
                table = _read_bin(Path(folder) / f"{number}.arrows")
                tree = shapely.STRtree(shapely.from_wkb(table["geometry"].to_numpy()))
                for box in group:
                    hits = [tree.query(shapely.box(*piece), predicate="intersects") for piece in pieces(box)]
                    yield table.take(np.unique(np.concatenate(hits)))

    def _sort_into(self, folder: Path, boxes: Sequence[Box], spans: Sequence[Interval]) -> None:
        """One pass over the file: the scenes of each bin of boxes are added to the bin's file."""
        parts = [(number // BOXES_PER_BIN, piece) for number, box in enumerate(boxes) for piece in pieces(box)]
        bin_of = np.array([number for number, _ in parts], np.int64)
        tree = shapely.STRtree([shapely.box(*piece) for _, piece in parts])
        for items in batches(self._file, BATCH_ROWS, spans):
            timely = items.filter(pa.array(_timely(items, spans)))
            if timely.num_rows == 0:
                continue
            near = timely.filter(pa.array(_meeting(timely["geometry"], tree)))
            # those kept because their date is unknown to the table may still have one outside
            scenes = within(scenes_from_columns(near, self._bands, self.refused), spans)
            if scenes.num_rows == 0:
                continue
            scene, part = tree.query(shapely.from_wkb(scenes["geometry"].to_numpy()), predicate="intersects")
            for number, rows in _by_bin(bin_of[part], scene):
                _append(folder / f"{number}.arrows", scenes.take(rows))


def _timely(items: pa.Table, spans: Sequence[Interval]) -> np.ndarray:
    """Which items may be in one of the intervals; unknown dates and those that are none are kept, to be refused."""
    if "datetime" not in items.column_names:
        return np.ones(items.num_rows, bool)
    try:
        moments = items["datetime"].cast(SCENES.field("datetime").type, safe=False)
    except pa.ArrowException:
        return np.ones(items.num_rows, bool)
    return inside(moments, spans) | np.asarray(moments.is_null())


def _meeting(geometry: pa.ChunkedArray, tree: shapely.STRtree) -> np.ndarray:
    """Which footprints may intersect a box; unknown ones and those that may cross the antimeridian are kept for an exact test."""
    try:
        shapes = shapely.from_wkb(np.asarray(geometry.to_numpy(), object), on_invalid="ignore")
    except TypeError:  # not WKB at all
        return np.ones(len(geometry), bool)
    west, _, east, _ = shapely.bounds(shapes).T
    with np.errstate(invalid="ignore"):
        near = ~((east - west < 180) & (east <= 180) & (west >= -180))
    near[np.unique(tree.query(shapes, predicate="intersects")[0])] = True
    return near


def _by_bin(bins: np.ndarray, scenes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each bin with its scenes, every scene once."""
    pairs = np.unique(np.stack([bins, scenes]), axis=1)
    starts = np.flatnonzero(np.r_[True, pairs[0, 1:] != pairs[0, :-1]]) if pairs.shape[1] else np.empty(0, np.int64)
    for start, rows in zip(starts.tolist(), np.split(pairs[1], starts[1:]) if len(starts) else [], strict=True):
        yield int(pairs[0, start]), rows


def _append(path: Path, scenes: pa.Table) -> None:
    """Each call adds one Arrow stream to the file."""
    with path.open("ab") as stream, pa.ipc.new_stream(stream, SCENES) as writer:
        writer.write_table(scenes.combine_chunks())


def _read_bin(path: Path) -> pa.Table:
    if not path.exists():
        return SCENES.empty_table()
    tables = []
    with pa.OSFile(str(path)) as stream:
        while stream.tell() < stream.size():
            tables.append(pa.ipc.open_stream(stream).read_all())
    return in_order(pa.concat_tables(tables))
