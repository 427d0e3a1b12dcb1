"""Decides which scenes may serve each place, period and season, and in which order they are tried."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from caco_assets.imagery.catalog import Box, Catalog
from caco_assets.imagery.grid import Grid, chip_footprints
from caco_assets.imagery.periods import Interval, period_spans
from caco_assets.imagery.scene import Scene

CELL_DEGREES = 1.0
"""Places are looked up together by cells of this size: about the size of a Sentinel-2 tile."""
SPARE_WIDENED = 3
"""Scenes from outside a season's window are listed up to `seasons` (the others may use up one each) and this many more."""

SCHEMA = pa.schema(
    [
        ("location_id", pa.string()),
        ("shard", pa.int32()),
        ("period", pa.int8()),
        ("season", pa.int8()),
        ("rank", pa.int16()),
        ("item_id", pa.string()),
        ("datetime", pa.timestamp("us", tz="UTC")),
        ("cloud_cover", pa.float32()),
        ("epsg", pa.int32()),
        ("processing_baseline", pa.string()),
        ("scale", pa.float64()),
        ("offset", pa.float64()),
        ("nodata", pa.float64()),
        ("radiometry", pa.string()),
        ("hrefs", pa.string()),
        ("status", pa.string()),
    ]
)
"""Of `scenes.parquet`. `radiometry` is null, or JSON `{band: [scale, offset]}` of bands that differ from `scale` and `offset`."""
STATUS = ("planned", "widened", "missing")
PLANNED, WIDENED, MISSING = range(3)

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Slots:
    """Candidates as parallel arrays, one entry per row of `scenes.parquet`; `scene` is -1 where none was found."""

    place: Ints
    period: Ints
    season: Ints
    rank: Ints
    scene: Ints
    status: Ints


def find_scenes(catalog: Catalog, grids: list[Grid], windows: list[list[Interval]]) -> tuple[list[Scene], NDArray[np.object_]]:
    """The scenes of both periods near the places, sorted by time and id, and the chips' footprints in degrees."""
    footprints = chip_footprints(grids)
    found: dict[str, Scene] = {}
    for box in search_boxes(footprints):
        for span in period_spans(windows):
            found |= {scene.item_id: scene for scene in catalog.search(box, span)}
    return sorted(found.values(), key=lambda scene: (scene.datetime, scene.item_id)), footprints


def search_boxes(footprints: NDArray[np.object_]) -> Iterable[Box]:
    """Boxes around the footprints that share a cell of the globe; footprints across the antimeridian go by their western part."""
    west, south, east, north = shapely.bounds(footprints).reshape(-1, 4).T
    east = np.where(east - west > 180, 180.0, east)
    cell = np.stack([np.floor(west / CELL_DEGREES), np.floor(south / CELL_DEGREES)])
    _, group = np.unique(cell, axis=1, return_inverse=True)
    for number in range(int(group.max(initial=-1)) + 1):
        rows = group == number
        yield float(west[rows].min()), float(south[rows].min()), float(east[rows].max()), float(north[rows].max())


def choose(scenes: list[Scene], footprints: NDArray[np.object_], windows: list[list[Interval]], max_scene_cloud: float) -> Slots:
    """All candidates of all places, ranked.

    In a season's own window the least cloudy scene comes first; unknown cloud cover comes after known; ties go by time, then
    id. After them, with status `widened`, come the scenes of the period nearest in time to the window, ordered the same way.

    Args:
        scenes: sorted by time and id.
        footprints: of the chips, (places,), EPSG:4326.
        windows: `[period][season]` from `periods.period_windows`.
        max_scene_cloud: scenes cloudier than this percentage are left out.

    Returns:
        Rows sorted by place, period, season, rank; a slot without any candidate has one row of status `missing`.
    """
    place, scene = containing(scenes, footprints)
    cloud = np.array([np.nan if one.cloud_cover is None else one.cloud_cover for one in scenes])
    seconds = np.array([one.datetime.timestamp() for one in scenes])
    keep = ~(cloud[scene] > max_scene_cloud)
    place, scene = place[keep], scene[keep]
    # position in the order "known before unknown, least cloudy, earliest, id" (scenes come sorted by time and id)
    preference = np.empty(len(scenes), np.int64)
    preference[np.lexsort((np.arange(len(scenes)), np.nan_to_num(cloud), np.isnan(cloud)))] = np.arange(len(scenes))

    parts: list[NDArray] = []
    for period, seasons in enumerate(windows):
        edges = np.array([start.timestamp() for start, _ in seasons] + [seasons[-1][1].timestamp()])
        within = (seconds[scene] >= edges[0]) & (seconds[scene] < edges[-1])
        places, candidates = place[within], scene[within]
        for season in range(len(seasons)):
            parts.append(_season(places, candidates, seconds, preference, edges, period, season, len(seasons)))
        parts.append(_missing(len(footprints), parts[-len(seasons) :], period))
    rows = np.concatenate(parts, axis=1)
    columns = rows[:, np.lexsort((rows[3], rows[2], rows[1], rows[0]))]
    return Slots(*columns)


def containing(scenes: list[Scene], footprints: NDArray[np.object_]) -> tuple[Ints, Ints]:
    """All pairs (place, scene) whose chip lies inside the scene's footprint. Scenes of one tile share one geometric test."""
    shapes: dict[bytes, list[int]] = {}
    for index, scene in enumerate(scenes):
        shapes.setdefault(scene.geometry.wkb, []).append(index)
    distinct = np.array([scenes[members[0]].geometry for members in shapes.values()], object)
    place, shape = shapely.STRtree(distinct).query(footprints, predicate="within")
    members = [np.array(group, np.int64) for group in shapes.values()]
    if len(place) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    lengths = np.array([len(group) for group in members])[shape]
    return np.repeat(place.astype(np.int64), lengths), np.concatenate([members[index] for index in shape])


def to_table(slots: Slots, scenes: list[Scene], location_ids: NDArray[np.object_], shards: NDArray[np.int32]) -> pa.Table:
    """The rows of `scenes.parquet`. The long texts of a scene are stored once and pointed at."""
    pointer = pa.array(slots.scene, pa.int32(), mask=slots.scene < 0)

    def of_scene(values: list, kind: pa.DataType) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pointer, pa.array(values, kind))

    def plain(values: list, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(pointer)

    usual = [scene.radiometry for scene in scenes]
    columns = {
        "location_id": pa.array(location_ids[slots.place], pa.string()),
        "shard": pa.array(shards[slots.place], pa.int32()),
        "period": pa.array(slots.period, pa.int8()),
        "season": pa.array(slots.season, pa.int8()),
        "rank": pa.array(slots.rank, pa.int16(), mask=slots.scene < 0),
        "item_id": of_scene([scene.item_id for scene in scenes], pa.string()),
        "datetime": plain([scene.datetime for scene in scenes], pa.timestamp("us", tz="UTC")),
        "cloud_cover": plain([scene.cloud_cover for scene in scenes], pa.float32()),
        "epsg": plain([scene.epsg for scene in scenes], pa.int32()),
        "processing_baseline": plain([scene.processing_baseline for scene in scenes], pa.string()),
        "scale": plain([one.scale for one in usual], pa.float64()),
        "offset": plain([one.offset for one in usual], pa.float64()),
        "nodata": plain([one.nodata for one in usual], pa.float64()),
        "radiometry": plain([_exceptions(scene) for scene in scenes], pa.string()),
        "hrefs": of_scene([json.dumps(dict(scene.hrefs), separators=(",", ":")) for scene in scenes], pa.string()),
        "status": pa.DictionaryArray.from_arrays(pa.array(slots.status, pa.int32()), pa.array(STATUS)),
    }
    return pa.table([columns[name] for name in SCHEMA.names], names=SCHEMA.names)


def write_scenes(path: Path, table: pa.Table) -> None:
    """Write `scenes.parquet`: plain strings for a reader, whatever they were here; the same rows give the same bytes."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd", store_schema=False, row_group_size=100_000)


def read_scenes(path: Path, shard: int | None = None) -> pa.Table:
    """The rows of one shard (default: all), with the columns and types of `SCHEMA`."""
    import pyarrow.parquet as pq

    filters = None if shard is None else [("shard", "=", shard)]
    return pq.read_table(path, columns=SCHEMA.names, filters=filters).cast(SCHEMA)


def _season(
    place: Ints, scene: Ints, seconds: NDArray, preference: Ints, edges: NDArray, period: int, season: int, seasons: int
) -> NDArray:
    """Ranked candidates of one season of one period for all places: rows (place, period, season, rank, scene, status)."""
    start, end = edges[season], edges[season + 1]
    when = seconds[scene]
    gap = np.where(when < start, start - when, np.where(when >= end, when - end + 1e-6, 0.0))
    status = np.where(gap > 0, WIDENED, PLANNED)
    order = np.lexsort((preference[scene], gap, status, place))
    nearness = _running(place[order] * 2 + status[order])
    listed = order[(status[order] == PLANNED) | (nearness < seasons + SPARE_WIDENED)]
    order = listed[np.lexsort((preference[scene[listed]], status[listed], place[listed]))]
    fixed = np.full(len(order), period), np.full(len(order), season)
    return np.stack([place[order], *fixed, _running(place[order]), scene[order], status[order]])


def _missing(places: int, found: list[NDArray], period: int) -> NDArray:
    """A row for each place and season of the period without a candidate."""
    rows = []
    for season, part in enumerate(found):
        lacking = np.setdiff1d(np.arange(places), part[0])
        rows.append(np.stack([lacking, *(np.full(len(lacking), value) for value in (period, season, 0, -1, MISSING))]))
    return np.concatenate(rows, axis=1)


def _running(groups: Ints) -> Ints:
    """Position of each element within its run of equal values (0, 1, 2, 0, 1 …)."""
    if len(groups) == 0:
        return np.empty(0, np.int64)
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))


def _exceptions(scene: Scene) -> str | None:
    table = {band: [one.scale, one.offset] for band, one in scene.exceptions.items()}
    return json.dumps(table, separators=(",", ":")) if table else None
