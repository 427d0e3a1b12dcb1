"""The archive of chips: shard folders of one tar of GeoTIFFs each, with an index of byte ranges that is also a STAC table.

QGIS, GDAL and rasterio open a chip in place: `/vsitar/…/shard=0007/chips.tar/L0000012/p0s3.tif`. The tar may lie in an object store
instead (see `tar_store`).
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from caco_assets.core.errors import UserError
from caco_assets.core.parquet import reading_parquet
from caco_assets.imagery.archive.chip import Chip, decode
from caco_assets.imagery.archive.tar_store import TAR, has_tar, open_tar, read_members

INDEX, QUARANTINE = "chips.parquet", "quarantine.parquet"
INDEX_ADVICE = "run `caco archive verify --repair`, then `caco ingest`"
_TIFF = "image/tiff; application=geotiff"
_BAND = pa.struct([("name", pa.string())])
_ASSET = pa.struct([("href", pa.string()), ("type", pa.string()), ("roles", pa.list_(pa.string())), ("bands", pa.list_(_BAND))])
_BOX = pa.struct([(edge, pa.float64()) for edge in ("xmin", "ymin", "xmax", "ymax")])
CHIPS_SCHEMA = pa.schema(
    [
        ("type", pa.string()),
        ("stac_version", pa.string()),
        ("stac_extensions", pa.list_(pa.string())),
        ("id", pa.string()),
        ("collection", pa.string()),
        ("location_id", pa.string()),
        ("period", pa.int8()),
        ("season", pa.int8()),
        ("datetime", pa.timestamp("us", tz="UTC")),
        ("item_id", pa.string()),
        ("epsg", pa.int32()),
        ("clear_fraction", pa.float32()),
        ("cloud_cover", pa.float32()),
        ("status", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("sha256", pa.string()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("bbox", _BOX),
        ("links", pa.list_(pa.struct([("href", pa.string()), ("rel", pa.string())]))),
        ("assets", pa.struct([("data", _ASSET)])),
        ("geometry", pa.binary()),
    ]
)
"""Of `chips.parquet`. `lon`, `lat`: the place itself."""

_PLAIN = {field.name for field in CHIPS_SCHEMA if not pa.types.is_nested(field.type)} - {"geometry"}
"""Columns whose type is compared: bands may have any names, and a reader may know a type of its own for footprints."""

QUARANTINE_SCHEMA = pa.schema(
    [
        ("location_id", pa.string()),
        ("shard", pa.int32()),
        ("period", pa.int8()),
        ("season", pa.int8()),
        ("item_id", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("clear_fraction", pa.float32()),
    ]
)
"""Of `quarantine.parquet`. Null where a refusal concerns a whole place or no scene at all."""


def shard_name(shard: int) -> str:
    """Folder of a shard."""
    return f"shard={shard:04d}"


def shard_folders(archive: Path) -> list[Path]:
    """The shards of an archive, by number."""
    return sorted(path for path in archive.glob("shard=*") if (path / INDEX).exists())


def member_name(location_id: str, period: int, season: int) -> str:
    """Name of a chip inside its tar."""
    return f"{location_id}/p{period}s{season}.tif"


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> list[tuple[int, int, str]]:
    """Write an uncompressed tar that depends on the members alone; returns (offset, length, sha256) of each one's bytes."""
    with path.open("wb") as stream:
        return pack_tar(stream, members)


def pack_tar(stream: IO[bytes], members: Iterable[tuple[str, bytes]]) -> list[tuple[int, int, str]]:
    """See `write_tar`, to a stream that need not be a file."""
    ranges = []
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)  # its defaults: mtime 0, uid 0, gid 0, mode 0644, no names
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
            ranges.append((stream.tell() - _padded(len(data)), len(data), hashlib.sha256(data).hexdigest()))
    return ranges


def write_index(path: Path, rows: Sequence[Mapping[str, Any]], bands: Sequence[str]) -> None:
    """Write `chips.parquet`: stac-geoparquet 1.0 (GeoParquet 1.1), one item per chip.

    Args:
        path: file to write.
        rows: the columns of `CHIPS_SCHEMA` except those of STAC itself; `geometry` is a shapely polygon.
        bands: of the chips, in order.
    """
    from stac_geoparquet.arrow import to_parquet

    items = []
    for row in rows:
        shape = row["geometry"]
        name = member_name(row["location_id"], row["period"], row["season"])
        asset = {"href": f"{TAR}/{name}", "type": _TIFF, "roles": ["data"], "bands": [{"name": band} for band in bands]}
        items.append(
            {
                **row,
                "type": "Feature",
                "stac_version": "1.1.0",
                "stac_extensions": [],
                "id": f"{row['location_id']}-p{row['period']}s{row['season']}",
                "collection": "chips",
                "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), shape.bounds, strict=True)),
                "links": [],
                "assets": {"data": asset},
                "geometry": shape.wkb,
            }
        )
    to_parquet(pa.Table.from_pylist(items, CHIPS_SCHEMA), path, compression="zstd")


def read_index(shard: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """`chips.parquet` of a shard folder, in the order of the tar: (location, period, season).

    Raises:
        UserError: it is missing, cut or damaged, or is another table.
    """
    wanted = CHIPS_SCHEMA if columns is None else pa.schema([CHIPS_SCHEMA.field(name) for name in columns])
    with reading_parquet(shard / INDEX, INDEX_ADVICE):
        table = pq.read_table(shard / INDEX, columns=wanted.names)
        for field in wanted:
            if field.name not in table.column_names:
                raise KeyError(field.name)
            found = table.schema.field(field.name).type
            if field.name in _PLAIN and found != field.type:
                raise TypeError(f"the column {field.name} holds {found}")
        table.validate(full=True)
        return table


def read_bytes(stream: IO[bytes], row: Mapping[str, Any]) -> bytes:
    """The GeoTIFF of an index row (`offset`, `length`, `sha256`), by one ranged read of the tar.

    Raises:
        UserError: it is not what the index says.
    """
    stream.seek(row["offset"])
    return _checked(row, stream.read(row["length"]), str(getattr(stream, "name", TAR)))


def _checked(row: Mapping[str, Any], data: bytes, tar: str) -> bytes:
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        name = row.get("id") or f"at byte {row['offset']}"
        cut = len(data) < row["length"]
        what = f"cut short ({len(data)} of {row['length']} bytes)" if cut else "not what its index says (sha256)"
        remedy = "`caco archive verify --repair`, then `caco ingest`, makes the shard again"
        raise UserError(f"{tar}: chip {name} is {what}; {remedy}")
    return data


def read_chip(shard: Path, row: Mapping[str, Any], bands: Sequence[str] | None = None) -> NDArray[np.uint16]:
    """Pixels (bands, H, W) of one chip.

    Args:
        shard: folder of the shard.
        row: of its index (`offset`, `length`, `sha256`).
        bands: which and in which order; default all, as archived.

    Raises:
        UserError: it is not what the index says.
    """
    with open_tar(shard) as stream:
        return decode(read_bytes(stream, row), bands)


def iter_chips(archive: Path, bands: Sequence[str] | None = None) -> Iterator[Chip]:
    """All chips in the order (location, period, season).

    Args:
        archive: folder of the shards.
        bands: which and in which order; default all, as archived. Fewer bands are read faster.

    Raises:
        UserError: a shard has no tar, or a chip is not what its index says.
    """
    columns = ["id", "location_id", "period", "season", "offset", "length", "sha256", "lon", "lat"]
    for shard in shard_folders(archive):
        if not has_tar(shard):
            raise UserError(f"{shard / TAR}: missing; `caco archive verify --repair`, then `caco ingest`, makes the shard again")
        rows = read_index(shard, columns).to_pylist()
        for row, data in zip(rows, checked_members(shard, rows), strict=True):
            yield Chip(row["location_id"], row["period"], row["season"], decode(data, bands), row["lon"], row["lat"])


def checked_members(shard: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    """The GeoTIFFs of index rows (`offset`, `length`, `sha256`), in their order.

    Raises:
        UserError: one is not what the index says.
    """
    for row, data in zip(rows, read_members(shard, rows), strict=True):
        yield _checked(row, data, str(shard / TAR))


def write_quarantine(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the refusals, sorted by place, period, season (in the order they were tried)."""

    def key(row: Mapping[str, Any]) -> tuple:
        # a refusal of the whole place comes last
        return row["location_id"], *((row[name] is None, row[name] or 0) for name in ("period", "season"))

    pq.write_table(pa.Table.from_pylist(sorted(rows, key=key), QUARANTINE_SCHEMA), path, compression="zstd")


def band_names(shard: Path) -> list[str]:
    """Bands of the shard's chips; empty when it has none."""
    assets = read_index(shard, ["assets"])["assets"].slice(0, 1).to_pylist()
    return [band["name"] for band in assets[0]["data"]["bands"]] if assets else []


def _padded(size: int) -> int:
    """Bytes that a member takes in a tar: whole blocks."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def rows_hash(table: pa.Table) -> str:
    """sha256 of a table's values, whatever file they came from."""
    digest = hashlib.sha256()
    for name in table.column_names:
        digest.update(json.dumps([name, table[name].to_pylist()], default=str).encode())
    return digest.hexdigest()
