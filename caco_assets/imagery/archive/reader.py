"""Reads single chips of an archive on disk, on a web server or in an object store, with one ranged read each.

An archive is a folder of shards, or, where the chain writes to an object store, the manifest that it keeps there (see `manifest`).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from caco_assets.core import object_store
from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import parse_json
from caco_assets.core.parquet import reading_parquet
from caco_assets.imagery.archive.chip import decode
from caco_assets.imagery.archive.shard import INDEX, shard_name
from caco_assets.imagery.archive.tar_store import POINTER, TAR

_COLUMNS = ("location_id", "period", "season", "offset", "length", "sha256")
Range = tuple[int, int, str]
"""Offset, length and sha256 of a chip."""


class ArchiveReader:
    """Reads chips of an archive by place, period and season.

    The index of a shard is read once, when its first chip is requested. Each chip is then one request for its byte range,
    whatever the size of the shard, and its checksum is compared. Several threads may share a reader.
    """

    def __init__(self, archive: str | Path, locations: str | Path | None = None) -> None:
        """Read nothing yet.

        Args:
            archive: folder of the shards: a path, or an address (`https://…`, `s3://bucket/archive`, `gs://…`, `az://…`); or the
                list of a stored archive (`s3://bucket/archive/embedded/2026-11.json`).
            locations: `locations.parquet`, which maps places to shards; default the one beside the archive, or of the
                list. It is read only when a chip is requested without its shard number.

        Raises:
            UserError: there is no such list.
        """
        self._root = str(archive).rstrip("/")
        self._listed: dict[str, Any] = {}
        if self._root.endswith(".json"):
            try:
                self._listed = parse_json(_whole(self._root), self._root)
            except FileNotFoundError as error:
                raise UserError(f"{self._root}: no such list; `caco ingest` writes it when all shards are there") from error
        beside = self._root.rpartition("/")[0] + "/locations.parquet"
        self._locations = str(locations) if locations else self._listed.get("locations", beside)
        self._ranges: dict[int, dict[tuple[str, int, int], Range]] = {}
        self._moved: dict[int, str] = {}
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
            shard: the place's shard; None: looked up in `locations.parquet`.
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
        tar, data = self._chip(number, offset, length)
        if len(data) != length:
            raise UserError(f"{tar}: {len(data)} bytes came for a range of {length}; does its server answer ranged requests?")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UserError(f"{tar}: {location_id}/p{period}s{season} is not what its index says; run `caco archive verify` there")
        return data

    def chips(self, shard: int) -> list[tuple[str, int, int]]:
        """(place, period, season) of every chip of a shard, in the order of its tar."""
        return list(self._index(shard))

    def _file(self, shard: int, name: str) -> str:
        """Address of a shard's file."""
        folder = shard_name(shard)
        if not self._listed:
            return f"{self._root}/{folder}/{name}"
        try:
            return self._listed["shards"][folder][name]
        except KeyError as error:
            raise UserError(f"{self._root}: has no {folder}") from error

    def _chip(self, shard: int, offset: int, length: int) -> tuple[str, bytes]:
        """Address of a shard's tar, and some of its bytes; a folder whose tar is in a store points to it."""
        tar = self._moved.get(shard) or self._file(shard, TAR)
        try:
            return tar, _range(tar, offset, length)
        except FileNotFoundError as error:
            if shard in self._moved or self._listed:
                raise UserError(f"{tar}: not there, though its index is") from error
        place = self._file(shard, POINTER)
        try:
            self._moved[shard] = str(parse_json(_whole(place), place)["address"])
        except FileNotFoundError as error:
            raise UserError(f"{tar}: not there, though its index is") from error
        except (TypeError, KeyError) as error:
            raise UserError(f"{place}: names no tar; run `caco archive verify` there") from error
        return self._chip(shard, offset, length)

    def _index(self, shard: int) -> dict[tuple[str, int, int], Range]:
        with self._lock:
            if shard not in self._ranges:
                table = self._table(self._file(shard, INDEX), _COLUMNS)
                self._ranges[shard] = {
                    (row["location_id"], row["period"], row["season"]): (row["offset"], row["length"], row["sha256"])
                    for row in table.to_pylist()
                }
            return self._ranges[shard]

    def _find(self, location_id: str) -> int:
        with self._lock:
            if self._shard_of is None:
                table = self._table(self._locations, ("location_id", "shard"))
                self._shard_of = dict(zip(table["location_id"].to_pylist(), table["shard"].to_pylist(), strict=True))
        if location_id not in self._shard_of:
            raise UserError(f"{location_id}: no such place in locations.parquet")
        return self._shard_of[location_id]

    def _table(self, path: str, columns: Sequence[str]) -> pa.Table:
        """A whole parquet file by one request."""
        try:
            data: Any = _whole(path)
        except FileNotFoundError as error:
            raise UserError(f"{path}: not there; name the folder that holds the shards, and locations.parquet beside it") from error
        except IsADirectoryError as error:
            raise UserError(f"{path}: a folder, where a table belongs; run `caco archive verify` there") from error
        with reading_parquet(path, "run `caco archive verify` there"):
            return pq.read_table(pa.BufferReader(data), columns=list(columns)).select(list(columns))


def _whole(address: str) -> bytes:
    if object_store.is_store(address):
        return object_store.read(address)
    from fsspec.core import url_to_fs

    files, path = url_to_fs(address)
    return bytes(files.cat_file(path))  # pyright: ignore[reportArgumentType]


def _range(address: str, offset: int, length: int) -> bytes:
    if object_store.is_store(address):
        return object_store.read_range(address, offset, length)
    from fsspec.core import url_to_fs

    files, path = url_to_fs(address)
    return bytes(files.cat_file(path, start=offset, end=offset + length))  # pyright: ignore[reportArgumentType]
