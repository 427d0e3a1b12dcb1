"""Single chips out of an archive wherever it lies: on disk, on a web server, in an object store; one ranged read for each."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from caco_assets.errors import UserError
from caco_assets.imagery.archive import INDEX, TAR, shard_name
from caco_assets.imagery.chip import decode

if TYPE_CHECKING:
    from pathlib import Path

    from fsspec import AbstractFileSystem

_COLUMNS = ("location_id", "period", "season", "offset", "length", "sha256")
Range = tuple[int, int, str]
"""Offset, length and sha256 of a chip."""


class ArchiveReader:
    """Reads chips of an archive by place, period and season.

    The index of a shard is read once, when its first chip is asked for. Each chip is then one request for its byte range,
    whatever the size of the shard, and its checksum is compared. Several threads may share a reader.
    """

    def __init__(self, archive: str | Path, locations: str | Path | None = None) -> None:
        """Read nothing yet.

        Args:
            archive: folder of the shards: a path, or an address that fsspec knows (`https://…`, `s3://bucket/archive`).
            locations: `locations.parquet`, which says in which shard a place lies; default the one beside the archive. It is
                read only when a chip is asked for without the number of its shard.
        """
        from fsspec.core import url_to_fs

        self._files, root = url_to_fs(str(archive))
        self._root = root.rstrip("/")
        self._locations = str(locations) if locations else None
        self._ranges: dict[int, dict[tuple[str, int, int], Range]] = {}
        self._shard_of: dict[str, int] | None = None
        self._lock = threading.Lock()

    def read(
        self, location_id: str, period: int, season: int, *, shard: int | None = None, bands: Sequence[str] | None = None
    ) -> NDArray[np.uint16]:
        """Pixels (bands, H, W) of one chip: reflectance × 10 000, 0 = no data.

        Args:
            location_id: the place.
            period: 0 early, 1 late.
            season: of the period.
            shard: in which the place lies; none: looked up in `locations.parquet`.
            bands: which and in which order; default all, as archived.

        Raises:
            UserError: no such place, shard or date, or the bytes are not those that were archived.
        """
        return decode(self.read_bytes(location_id, period, season, shard=shard), bands)

    def read_bytes(self, location_id: str, period: int, season: int, *, shard: int | None = None) -> bytes:
        """The chip's GeoTIFF; see `read`."""
        number = self._find(location_id) if shard is None else shard
        ranges = self._index(number)
        if (location_id, period, season) not in ranges:
            raise UserError(
                f"{location_id}, period {period}, season {season}: no such chip in {shard_name(number)} of {self._root}"
            )
        offset, length, sha256 = ranges[location_id, period, season]
        tar = f"{self._root}/{shard_name(number)}/{TAR}"
        data = self._fetch(tar, offset, offset + length)
        if len(data) != length:
            raise UserError(f"{tar}: {len(data)} bytes came for a range of {length}; does its server answer ranged requests?")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UserError(f"{tar}: {location_id}/p{period}s{season} is not what its index says; run `caco archive verify` there")
        return data

    def chips(self, shard: int) -> list[tuple[str, int, int]]:
        """(place, period, season) of every chip of a shard, in the order of its tar."""
        return list(self._index(shard))

    def _index(self, shard: int) -> dict[tuple[str, int, int], Range]:
        with self._lock:
            if shard not in self._ranges:
                table = self._table(f"{self._root}/{shard_name(shard)}/{INDEX}", self._files, _COLUMNS)
                self._ranges[shard] = {
                    (row["location_id"], row["period"], row["season"]): (row["offset"], row["length"], row["sha256"])
                    for row in table.to_pylist()
                }
            return self._ranges[shard]

    def _find(self, location_id: str) -> int:
        from fsspec.core import url_to_fs

        with self._lock:
            if self._shard_of is None:
                beside = self._root.rpartition("/")[0] + "/locations.parquet"
                files, path = url_to_fs(self._locations) if self._locations else (self._files, beside)
                table = self._table(path, files, ("location_id", "shard"))
                self._shard_of = dict(zip(table["location_id"].to_pylist(), table["shard"].to_pylist(), strict=True))
        if location_id not in self._shard_of:
            raise UserError(f"{location_id}: no such place in locations.parquet")
        return self._shard_of[location_id]

    def _table(self, path: str, files: AbstractFileSystem, columns: Sequence[str]) -> pa.Table:
        """A whole parquet file by one request."""
        try:
            data: Any = files.cat_file(path)
        except FileNotFoundError as error:
            raise UserError(f"{path}: not there; name the folder that holds the shards, and locations.parquet beside it") from error
        return pq.read_table(pa.BufferReader(data), columns=list(columns))

    def _fetch(self, path: str, start: int, end: int) -> bytes:
        try:
            return bytes(self._files.cat_file(path, start=start, end=end))  # pyright: ignore[reportArgumentType]
        except FileNotFoundError as error:
            raise UserError(f"{path}: not there, though its index is") from error
