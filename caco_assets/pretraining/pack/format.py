"""The pack format: every place's dates as uint8 images in a few memory-mapped files, written by `pack.build`."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_object
from caco_assets.core.products import file_md5, folder_hash
from caco_assets.pretraining.encoder.stretch import Stretch

PERIODS = 2
TABLE, DESCRIPTION = "pack.parquet", "pack.json"
_BLOCK = 1 << 20
SCHEMA = pa.schema(
    {
        "location_id": pa.string(),
        "shard_file": pa.string(),
        "row": pa.int32(),
        "lon": pa.float64(),
        "lat": pa.float64(),
        "valid": pa.list_(pa.bool_()),
        "crc32": pa.list_(pa.uint32()),
    }
)
"""Columns of the table: one row per place. `crc32`: of the bytes of each of its images; null in packs of earlier versions."""


@dataclass(frozen=True)
class Pack:
    """An open pack; images are read from disk on access."""

    folder: Path
    bands: tuple[str, ...]
    stretch: str
    chip_size: int
    seasons: int
    images: tuple[np.ndarray, ...]
    """Per file: read-only uint8 (places, 2, seasons, H, W, bands)."""
    file_index: np.ndarray
    """int (count,): which file holds a place."""
    row: np.ndarray
    """int (count,): its row in that file."""
    valid: np.ndarray
    """bool (count, 2, seasons): which dates exist."""
    location_id: tuple[str, ...]
    lonlat: np.ndarray
    """float64 (count, 2), degrees."""
    sums: np.ndarray | None
    """uint32 (count, 2, seasons): CRC-32 of each image; None: the pack was built without."""
    checked: np.ndarray
    """bool (count, 2, seasons): which images were compared with their sums since the pack was opened."""

    @property
    def count(self) -> int:
        """Number of places."""
        return len(self.row)

    def image(self, place: int, period: int, season: int) -> np.ndarray:
        """Read-only uint8 (H, W, bands) of one date of one place. Thread-safe.

        Raises:
            UserError: its bytes are not those that were written; an image is compared when it is first read.
        """
        found = self.images[self.file_index[place]][self.row[place], period, season]
        if self.sums is not None and not self.checked[place, period, season]:
            if zlib.crc32(found) != self.sums[place, period, season]:
                name = f"{self.location_id[place]}, period {period}, season {season}"
                what = f"{name} in images file {self.file_index[place]} has other bytes than when it was written"
                raise _damaged(self.folder, what)
            self.checked[place, period, season] = True
        return found

    def is_named(self, content: str) -> bool | None:
        """Whether this is the pack with a content hash, by its description and table; images are compared as they are read.

        Args:
            content: hash of the folder, see `core.products.content_hash`.

        Returns:
            None: it was built without the sums of its files, so that only a hash of every byte can tell.
        """
        about = json.loads((self.folder / DESCRIPTION).read_text())
        files = {entry["name"]: entry.get("md5") for entry in about["files"]}
        if self.sums is None or None in files.values():
            return None
        return folder_hash({**files, **{name: file_md5(self.folder / name) for name in (DESCRIPTION, TABLE)}}) == content

    def channels(self, bands: tuple[str, ...]) -> list[int]:
        """Indices of `bands` in the images' last axis, in the given order.

        Raises:
            UserError: a band is missing from the pack.
        """
        if missing := [band for band in bands if band not in self.bands]:
            raise UserError(
                f"pretraining.bands={','.join(bands)}: the pack has {','.join(self.bands)}, not {','.join(missing)}; "
                "build the pack again with it, or leave it out"
            )
        return [self.bands.index(band) for band in bands]

    @classmethod
    def open(cls, folder: Path, verify: bool = False) -> Pack:
        """Map a pack and check that its parts are consistent.

        Args:
            folder: output of `build`.
            verify: also read every byte and compare the hashes.

        Raises:
            UserError: the pack is missing or damaged; names the part.
        """
        if not (folder / DESCRIPTION).is_file():
            raise UserError(f"{folder}: no pack here ({DESCRIPTION} is missing); build it with the stage `pack`, or `caco demo`")
        try:
            about = read_object(folder / DESCRIPTION, "build the pack again")
            table = pq.read_table(folder / TABLE, schema=SCHEMA)
            bands, seasons, side = tuple(about["bands"]), int(about["seasons"]), int(about["chip_size"])
            tables_sha256 = Stretch.named(about["stretch"], bands).sha256()
            files, count = {entry["name"]: entry for entry in about["files"]}, about["count"]
            images = tuple(_map(folder / name) for name in files)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError, pa.ArrowException, UserError) as error:
            raise _damaged(folder, f"{type(error).__name__}: {error}") from error
        if tables_sha256 != about["stretch_table_sha256"]:
            raise _damaged(folder, f"it was made with another table of the stretch {about['stretch']}")
        for (name, entry), array in zip(files.items(), images, strict=True):
            if array.dtype != np.uint8 or array.shape != (entry["rows"], PERIODS, seasons, side, side, len(bands)):
                raise _damaged(folder, f"{name} holds {array.dtype} {array.shape}")
            if verify and file_hashes(folder / name)["sha256"] != entry["sha256"]:
                raise _damaged(folder, f"{name} has other bytes than when it was written")
        shape = (count, PERIODS, seasons)
        index = {name: i for i, name in enumerate(files)}
        file_index = np.array([index.get(name, -1) for name in table["shard_file"].to_pylist()], np.int64)
        row = table["row"].to_numpy()
        if table.num_rows != count or count != sum(len(array) for array in images) or (file_index < 0).any():
            raise _damaged(folder, f"{TABLE} lists {table.num_rows} places, {DESCRIPTION} {count}")
        if (row < 0).any() or (row >= np.array([len(array) for array in images])[file_index]).any():
            raise _damaged(folder, f"{TABLE} names a row that no file has")
        try:
            valid = np.array(table["valid"].to_pylist(), bool).reshape(shape)
            sums = np.array(table["crc32"].to_pylist(), np.uint32).reshape(shape) if not table["crc32"].null_count else None
        except (TypeError, ValueError) as error:
            raise _damaged(folder, f"{TABLE}: {error}") from error
        return cls(
            folder=folder,
            bands=bands,
            stretch=about["stretch"],
            chip_size=side,
            seasons=seasons,
            images=images,
            file_index=file_index,
            row=row,
            valid=valid,
            location_id=tuple(table["location_id"].to_pylist()),
            lonlat=np.column_stack([table["lon"].to_numpy(), table["lat"].to_numpy()]),
            sums=sums,
            checked=np.zeros(shape, bool),
        )


def _map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r").view(np.ndarray)
    # numpy parses the header as Python source, which fails in many ways
    except Exception as error:
        raise ValueError(f"{path.name}: {type(error).__name__}: {error}") from error


def file_hashes(path: Path) -> dict[str, str]:
    """`sha256` and `md5` of a file, which is read once."""
    digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            for digest in digests.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"{folder}: the pack is damaged ({' '.join(what.split())}); delete the folder and build it again")
