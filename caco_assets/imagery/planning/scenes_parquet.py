"""`scenes.parquet`: its columns, written so that the same rows give the same bytes, and read a shard at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from caco_assets.core.parquet import read_parquet
from caco_assets.imagery.planning.ranking import STATUS, Slots

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
_LONG = ("item_id", "hrefs")
ROW_GROUP = 100_000
DICTIONARY_BYTES = 1 << 29
"""The long texts of a row group are stored once in its dictionary, whatever its size; the default repeats them beyond 1 MiB."""


def to_table(slots: Slots, scenes: pa.Table, location_ids: NDArray[np.object_], shards: NDArray[np.int32]) -> pa.Table:
    """The rows of `scenes.parquet`. The long texts of a scene are stored once and referenced.

    Args:
        slots: `place` counts in `location_ids`, `scene` in `scenes`.
        scenes: columns of `scene_table.SCENES`.
        location_ids: (places,).
        shards: (places,).
    """
    pointer = pa.array(slots.scene, pa.int32(), mask=slots.scene < 0)
    columns: dict[str, pa.Array] = {
        "location_id": pa.array(location_ids[slots.place], pa.string()),
        "shard": pa.array(shards[slots.place], pa.int32()),
        "period": pa.array(slots.period, pa.int8()),
        "season": pa.array(slots.season, pa.int8()),
        "rank": pa.array(slots.rank, pa.int16(), mask=slots.scene < 0),
        "status": pa.DictionaryArray.from_arrays(pa.array(slots.status, pa.int32()), pa.array(STATUS)),
    }
    for name in SCHEMA.names:
        if name in columns:
            continue
        values = scenes[name].combine_chunks().cast(SCHEMA.field(name).type)
        columns[name] = pa.DictionaryArray.from_arrays(pointer, values) if name in _LONG else values.take(pointer)
    return pa.table([columns[name] for name in SCHEMA.names], names=SCHEMA.names)


class SceneWriter:
    """Writes `scenes.parquet` table by table; each begins a row group. Dictionaries become plain strings."""

    def __init__(self, path: Path) -> None:
        self._path, self._writer = path, None

    def __enter__(self) -> SceneWriter:
        return self

    def write(self, table: pa.Table) -> None:
        """Add rows from `to_table`."""
        import pyarrow.parquet as pq

        if self._writer is None:
            options = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": DICTIONARY_BYTES}
            self._writer = pq.ParquetWriter(self._path, table.schema, **options)
        self._writer.write_table(table, row_group_size=ROW_GROUP)

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


def read_scenes(path: Path, shard: int | None = None) -> pa.Table:
    """The rows of one shard (default: all), with the columns and types of `SCHEMA`.

    Raises:
        UserError: the file is missing, cut or damaged, or is another table.
    """
    filters = None if shard is None else [("shard", "=", shard)]
    return read_parquet(path, schema=SCHEMA, advice="run `caco plan` again", filters=filters)
