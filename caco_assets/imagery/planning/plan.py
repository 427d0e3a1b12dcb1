"""Plans which scenes may serve each place, period and season: cell by cell, then written place by place.

Memory stays bounded: a cell's scenes and candidates are written to a scratch folder as soon as they are ranked, and read back for
as many places at a time as a row group of `scenes.parquet` holds.
"""

from __future__ import annotations

import mmap
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from caco_assets.core.progress import Progress
from caco_assets.imagery.catalogs.catalog import Catalog
from caco_assets.imagery.geometry.chip_grid import Floats, box_footprints, chip_corners
from caco_assets.imagery.geometry.mgrs_cells import box_around, cells
from caco_assets.imagery.planning.ranking import STATUS, Limits, Slots, holding, rank_scenes
from caco_assets.imagery.planning.scenes_parquet import SceneWriter, to_table
from caco_assets.imagery.scenes.periods import Interval, period_spans
from caco_assets.imagery.scenes.scene_table import SCENES, in_order

PLACES_AT_ONCE = 512
"""Places written together: some 80 000 rows."""
PLACES_TOGETHER = 4096
"""Maximum places of a cell that are ranked together: bounds the matrix of places and scenes."""
HELD_RECORDS = 2_000_000
"""Candidates held in memory before they are written, 12 bytes each."""

_KEPT = SCENES.remove(SCENES.get_field_index("geometry"))
"""Columns of a scene that are written."""
_RECORD = np.dtype([("place", "<i4"), ("scene", "<i4"), ("rank", "<i2"), ("period", "i1"), ("season", "i1"), ("status", "i1")])


@dataclass(frozen=True)
class Sites:
    """The places and the positions of their chips, as columns (N,)."""

    location_ids: NDArray[np.object_]
    shards: NDArray[np.int32]
    epsg: NDArray[np.int32]
    left: Floats
    top: Floats
    side: float
    """Metres."""

    @classmethod
    def of(cls, ids: Sequence[str], lon: Floats, lat: Floats, shards: NDArray[np.int32], size: int, resolution: float) -> Sites:
        """From places in degrees and the chips' size in pixels and metres per pixel."""
        return cls(np.array(ids, object), shards, *chip_corners(lon, lat, size, resolution), side=size * resolution)

    def cells(self) -> list[NDArray[np.int64]]:
        """Rows of the places of each cell, neighbors near each other."""
        return cells(self.epsg, self.left + self.side / 2, self.top - self.side / 2)

    def footprints(self, rows: NDArray[np.int64]) -> NDArray[np.object_]:
        """Chips of places in one UTM zone as polygons in degrees."""
        left, top = self.left[rows], self.top[rows]
        return box_footprints(int(self.epsg[rows[0]]), np.stack([left, top - self.side, left + self.side, top], axis=1))


def write_plan(
    path: Path, sites: Sites, catalog: Catalog, windows: list[list[Interval]], limits: Limits, scratch: Path
) -> dict[str, int]:
    """Choose the scenes of all places and write `scenes.parquet`.

    Args:
        path: file to write.
        sites: the places, in the order of the file.
        catalog: used to look up scenes.
        windows: `[period][season]` from `periods.period_windows`.
        limits: which scenes are listed.
        scratch: private folder; emptied before and after.

    Returns:
        `scenes` that hold a chip, `candidates` listed, `cells` searched; `planned`, `widened`, `missing`: slots by first choice.

    Raises:
        UserError: the catalog cannot be read, or does not respond.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    groups, counts = sites.cells(), Counter[str]()
    boxes = [box_around(sites.footprints(rows), int(sites.epsg[rows[0]])) for rows in groups]
    progress = Progress("scenes", len(groups), "tiles")
    with _CandidateFiles(scratch, len(sites.location_ids)) as files:
        for rows, found in zip(groups, catalog.search_many(boxes, period_spans(windows)), strict=True):
            holds = holding(found, sites.footprints(rows))
            useful = np.flatnonzero(holds.any(axis=0))
            scenes, holds = found.take(useful), holds[:, useful]
            files.begin(scenes)
            for start in range(0, len(rows), PLACES_TOGETHER):
                part = slice(start, start + PLACES_TOGETHER)
                slots = rank_scenes(scenes, holds[part], int(sites.epsg[rows[0]]), windows, limits)
                files.add(rows[part], slots)
                for code, name in enumerate(STATUS):
                    counts[name] += int(((slots.rank == 0) & (slots.status == code)).sum())
                counts["candidates"] += int((slots.scene >= 0).sum())
            progress.advance()
    progress.close()
    with SceneWriter(path) as writer:
        for start, slots, scenes in files.blocks():
            end = start + PLACES_AT_ONCE
            writer.write(to_table(slots, scenes, sites.location_ids[start:end], sites.shards[start:end]))
    shutil.rmtree(scratch)
    return {"scenes": files.scenes(), "cells": len(groups), **{name: counts[name] for name in ("candidates", *STATUS)}}


class _CandidateFiles:
    """Candidates by blocks of places, and the scenes of each cell, on disk."""

    def __init__(self, folder: Path, places: int) -> None:
        self._folder, self._places = folder, places
        self._held: list[list[NDArray]] = [[] for _ in range(0, places, PLACES_AT_ONCE)]
        self._count = 0
        self._stream = (folder / "scenes.arrow").open("wb")
        self._writer = pa.ipc.new_file(self._stream, _KEPT)
        self._starts = [0]
        self._hashes: list[NDArray[np.int64]] = []

    def begin(self, scenes: pa.Table) -> None:
        """The scenes of the next cell."""
        # one batch for each cell, even an empty one: its number is derived from the scenes' own
        self._writer.write_batch(pa.record_batch([_whole(scenes[name]) for name in _KEPT.names], schema=_KEPT))
        self._starts.append(self._starts[-1] + scenes.num_rows)
        self._hashes.append(np.fromiter(map(hash, scenes["item_id"].to_pylist()), np.int64, scenes.num_rows))

    def add(self, rows: NDArray[np.int64], slots: Slots) -> None:
        """Candidates of the current cell; the places of `slots` are `rows`."""
        records = np.empty(len(slots.place), _RECORD)
        for name in ("period", "season", "rank", "status"):
            records[name] = getattr(slots, name)
        records["place"] = rows[slots.place]
        records["scene"] = np.where(slots.scene < 0, -1, slots.scene + self._starts[-2])
        records = records[np.argsort(records["place"], kind="stable")]
        blocks = records["place"] // PLACES_AT_ONCE
        edges = np.flatnonzero(np.diff(blocks)) + 1
        for part in np.split(records, edges):
            self._held[part["place"][0] // PLACES_AT_ONCE].append(part)
        self._count += len(records)
        if self._count > HELD_RECORDS:
            self._flush()

    def __enter__(self) -> _CandidateFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
            self._writer.close()
        self._stream.close()

    def scenes(self) -> int:
        """How many different scenes there are: those of neighboring cells overlap."""
        return len(np.unique(np.concatenate(self._hashes)))

    def blocks(self) -> Iterator[tuple[int, Slots, pa.Table]]:
        """For each block of places its first place, its candidates in the order of the file, and their scenes."""
        with (self._folder / "scenes.arrow").open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as pages:
            reader = pa.ipc.open_file(pa.py_buffer(pages))
            for number in range(len(self._held)):
                records = np.fromfile(self._folder / f"{number}.bin", _RECORD)
                start = number * PLACES_AT_ONCE
                records = records[np.lexsort([records[name] for name in ("rank", "season", "period", "place")])]
                # a catalog small enough for one block is written with all its scenes, including those that no row refers to
                named = np.unique(records["scene"][records["scene"] >= 0]) if len(self._held) > 1 else np.arange(self._starts[-1])
                scenes, position = self._pick(reader, named)
                pages.madvise(mmap.MADV_DONTNEED)
                columns = {field.name: records[field.name].astype(np.int64) for field in fields(Slots)}
                columns["place"] -= start
                found = columns["scene"] >= 0
                columns["scene"][found] = position[np.searchsorted(named, columns["scene"][found])]
                yield start, Slots(**columns), scenes
            del reader

    def _pick(self, reader: pa.RecordBatchFileReader, numbers: NDArray[np.int64]) -> tuple[pa.Table, NDArray[np.int64]]:
        """The scenes of these numbers, in order and each once, and the new position of each number."""
        cell = np.searchsorted(self._starts, numbers, "right") - 1
        taken = []
        for group in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(cell)) + 1):
            if len(group):
                number = int(cell[group[0]])
                taken.append(reader.get_batch(number).take(pa.array(numbers[group] - self._starts[number])))
        table = pa.Table.from_batches(taken, _KEPT)
        scenes = in_order(table)
        ids = {item_id: row for row, item_id in enumerate(scenes["item_id"].to_pylist())}
        return scenes, np.array([ids[item_id] for item_id in table["item_id"].to_pylist()], np.int64)

    def _flush(self) -> None:
        for number, parts in enumerate(self._held):
            with (self._folder / f"{number}.bin").open("ab") as stream:
                for part in parts:
                    part.tofile(stream)
            parts.clear()
        self._count = 0


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
