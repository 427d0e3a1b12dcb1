"""Verifies an archive: the files of every shard, the headers of its tar, its index and its chips."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from caco_assets.core import object_store
from caco_assets.core.errors import UserError, one_line
from caco_assets.core.parquet import count_rows, reading_parquet
from caco_assets.core.progress import Progress
from caco_assets.imagery.archive.shard import CHIPS_SCHEMA, INDEX, QUARANTINE, member_name, read_index, shard_name
from caco_assets.imagery.archive.tar_store import POINTER, TAR, open_whole, pointer
from caco_assets.imagery.archive.verify_chip import DamagedChipError, Found, check_chip
from caco_assets.imagery.geometry.chip_grid import Grid

_SHARD = re.compile(r"^shard=\d{4,}$")
_FILES = (TAR, INDEX, QUARANTINE)
_LISTED = ("id", "location_id", "period", "season", "epsg", "offset", "length", "sha256", "assets", "geometry")

Row = Mapping[str, Any]
Size = tuple[int, int, float]
"""Bands, pixels on a side, metres per pixel."""


@dataclass(frozen=True)
class Problem:
    """One problem found in an archive."""

    shard: str
    """Name of the shard's folder; empty when it concerns the archive as a whole."""
    chip: str | None
    """Id of the chip; None if it concerns the shard."""
    what: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.shard or 'archive'}: {f'{self.chip} ' if self.chip else ''}{self.what}"


def verify_archive(archive: Path, shards: int | None = None, workers: int | None = None) -> list[Problem]:
    """Read every byte of an archive and compare it with the index.

    A shard: its three files and no other; the index has its columns, in order, each chip once; the tar is intact and holds
    exactly the chips of the index at their offsets. A chip: length and sha256, a GeoTIFF of uint16 with the bands of the index,
    square, north up, its projection and footprint those of the index, the size that of the archive's other chips, its grid
    that of the place's other dates.

    Args:
        archive: folder of the shards.
        shards: expected number; None: those present.
        workers: threads; None: one per core.

    Returns:
        In the order of shards and chips, whatever the number of workers.
    """
    found = [Problem("", None, f"{name} does not belong here") for name in _strays(archive)]
    wanted = [shard_name(number) for number in range(shards or 0)]
    names = sorted({path.name for path in _folders(archive)} | set(wanted))
    progress = Progress("verify", sum(_expected(archive / name) for name in names), "chips")
    sizes: dict[Size, str] = {}
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for name in names:
            if shards is not None and name not in wanted:
                found.append(Problem(name, None, f"is beyond the last of {shards} shards"))
            found += _shard(archive / name, pool, progress, sizes)
    progress.close()
    return found


def is_safe_member(name: str) -> bool:
    """Whether a path out of a tar or an index stays below the folder it is unpacked to."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\\" not in name and "\0" not in name


def _folders(archive: Path) -> list[Path]:
    return [path for path in archive.iterdir() if path.is_dir() and _SHARD.match(path.name)] if archive.is_dir() else []


def _strays(archive: Path) -> list[str]:
    """Files that are neither a shard nor the partial one of an interrupted run (these begin with a dot)."""
    if not archive.is_dir():
        return []
    return sorted(p.name for p in archive.iterdir() if not p.name.startswith(".") and not (p.is_dir() and _SHARD.match(p.name)))


def _expected(folder: Path) -> int:
    """Chips that a shard's index lists; 0 without a readable one."""
    try:
        return count_rows(folder / INDEX)
    except UserError:
        return 0


def _shard(folder: Path, pool: ThreadPoolExecutor, progress: Progress, sizes: dict[Size, str]) -> Iterator[Problem]:
    def wrong(what: str, chip: str | None = None) -> Problem:
        return Problem(folder.name, chip, what)

    if not folder.is_dir():
        yield wrong("is missing")
        return
    files = _FILES if (folder / TAR).is_file() or not (folder / POINTER).is_file() else (POINTER, *_FILES[1:])
    lacking = [name for name in files if not (folder / name).is_file()]
    yield from (wrong(f"{name} is missing") for name in lacking)
    yield from (wrong(f"{path.name} does not belong here") for path in sorted(folder.iterdir()) if path.name not in files)
    if QUARANTINE not in lacking and (problem := _unreadable_table(folder / QUARANTINE)):
        yield wrong(f"{QUARANTINE} {problem}")
    if INDEX in lacking or TAR in lacking:
        return
    if problem := _away(folder):
        yield wrong(problem)
        return
    if problem := _unreadable_table(folder / INDEX):
        yield wrong(f"{INDEX} {problem}")
        return
    if absent := [name for name in CHIPS_SCHEMA.names if name not in pq.read_schema(folder / INDEX).names]:
        yield wrong(f"{INDEX} lacks the columns {', '.join(absent)}")
        return
    try:
        rows = read_index(folder, _LISTED).to_pylist()
    except UserError as error:
        yield wrong(f"{INDEX} cannot be read ({one_line(error.__cause__ or error, 200)})")
        return
    yield from (wrong(what, chip) for chip, what in _index(rows))
    yield from (wrong(what, chip) for chip, what in _tar(folder, rows))
    grids: dict[str, Grid] = {}
    for row, found in zip(rows, pool.map(lambda row: _check(folder, row), rows), strict=True):
        progress.advance()
        what = found if isinstance(found, str) else _odd_one_out(found, row, grids, sizes)
        if what is not None:
            yield wrong(what, row["id"])


def _away(folder: Path) -> str | None:
    """What is wrong with a tar in an object store as a whole."""
    try:
        far = pointer(folder)
    except UserError:
        return f"{POINTER} cannot be read"
    there = far and object_store.size(far.address)
    if far is None or there == far.bytes:
        return None
    return f"{TAR} is not at {far.address}" if there is None else f"{far.address} has {there} bytes, not {far.bytes}"


def _check(folder: Path, row: Row) -> Found | str:
    try:
        return check_chip(folder, row)
    except DamagedChipError as error:
        return str(error)


def _odd_one_out(found: Found, row: Row, grids: dict[str, Grid], sizes: dict[Size, str]) -> str | None:
    """How a valid chip differs from the first chip of its place, or of the archive."""
    size = (found.bands, found.grid.size, found.grid.resolution)
    usual, whose = next(iter(sizes.items()), (size, row["id"]))
    sizes.setdefault(usual, whose)
    if found.grid != grids.setdefault(row["location_id"], found.grid):
        return f"lies on another grid than the other dates of {row['location_id']}"
    if size != usual:
        return "has {} bands of {} pixels of {:g} m; {} has {} of {} of {:g} m".format(*size, whose, *usual)
    return None


def _unreadable_table(path: Path) -> str | None:
    try:
        with reading_parquet(path):
            pq.read_table(path).validate(full=True)
    except UserError as error:
        return f"cannot be read ({one_line(error.__cause__ or error, 200)})"
    return None


def _index(rows: Sequence[Row]) -> Iterator[tuple[str | None, str]]:
    keys = [(row["location_id"], row["period"], row["season"]) for row in rows]
    if keys != sorted(keys):
        yield None, f"{INDEX} is not in the order of place, period, season"
    seen: set[tuple] = set()
    for key, row in zip(keys, rows, strict=True):
        if key in seen:
            yield row["id"], "is listed twice"
        seen.add(key)
        if row["id"] != f"{key[0]}-p{key[1]}s{key[2]}":
            yield row["id"], f"is listed for the place {key[0]}, period {key[1]}, season {key[2]}"
        if not is_safe_member(member_name(*key)):
            yield row["id"], "has a name that leads out of the archive"


def _tar(folder: Path, rows: Sequence[Row]) -> Iterator[tuple[str | None, str]]:
    """The tar's headers against the index."""
    members: dict[str, tarfile.TarInfo] = {}
    try:
        # without `ignore_zeros`, reading stops at the first damaged header: what follows it is then missing below
        with open_whole(folder) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.name in members:
                    yield None, f"{TAR} holds {member.name} twice"
                if not member.isreg() or not is_safe_member(member.name):
                    yield None, f"{TAR} holds {member.name!r}, which is no chip"
                members[member.name] = member
    except (tarfile.TarError, OSError) as error:
        yield None, f"{TAR} is damaged ({one_line(error, 200)})"
    wanted = {member_name(row["location_id"], row["period"], row["season"]): row for row in rows}
    for name, row in wanted.items():
        member = members.get(name)
        if member is None:
            yield row["id"], f"is not in {TAR}"
        elif (member.offset_data, member.size) != (row["offset"], row["length"]):
            yield row["id"], f"is at bytes {member.offset_data}+{member.size} of {TAR}, not at {row['offset']}+{row['length']}"
    yield from ((None, f"{TAR} holds {name}, which the index does not list") for name in members if name not in wanted)
