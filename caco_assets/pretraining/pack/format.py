"""The pack format: every place's dates as uint8 images in a few memory-mapped files, written by `pack.build`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.stretch import Stretch

PERIODS = 2
TABLE, DESCRIPTION = "pack.parquet", "pack.json"
SCHEMA = pa.schema(
    {
        "location_id": pa.string(),
        "shard_file": pa.string(),
        "row": pa.int32(),
        "lon": pa.float64(),
        "lat": pa.float64(),
        "valid": pa.list_(pa.bool_()),
    }
)
"""Columns of the table: one row per place."""


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

    @property
    def count(self) -> int:
        """Number of places."""
        return len(self.row)

    def image(self, place: int, period: int, season: int) -> np.ndarray:
        """Read-only uint8 (H, W, bands) of one date of one place."""
        return self.images[self.file_index[place]][self.row[place], period, season]

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
            about = json.loads((folder / DESCRIPTION).read_text())
            table = pq.read_table(folder / TABLE, schema=SCHEMA)
            bands, seasons, side = tuple(about["bands"]), int(about["seasons"]), int(about["chip_size"])
            tables_sha256 = Stretch.named(about["stretch"], bands).sha256()
            files, count = {entry["name"]: entry for entry in about["files"]}, about["count"]
            images = tuple(_map(folder / name) for name in files)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise _damaged(folder, f"{type(error).__name__}: {error}") from error
        if tables_sha256 != about["stretch_table_sha256"]:
            raise _damaged(folder, f"it was made with another table of the stretch {about['stretch']}")
        for (name, entry), array in zip(files.items(), images, strict=True):
            if array.dtype != np.uint8 or array.shape != (entry["rows"], PERIODS, seasons, side, side, len(bands)):
                raise _damaged(folder, f"{name} holds {array.dtype} {array.shape}")
            if verify and sha256_of(folder / name) != entry["sha256"]:
                raise _damaged(folder, f"{name} has other bytes than when it was written")
        index = {name: i for i, name in enumerate(files)}
        file_index = np.array([index.get(name, -1) for name in table["shard_file"].to_pylist()], np.int64)
        row = table["row"].to_numpy()
        if table.num_rows != count or count != sum(len(array) for array in images) or (file_index < 0).any():
            raise _damaged(folder, f"{TABLE} lists {table.num_rows} places, {DESCRIPTION} {count}")
        return cls(
            folder=folder,
            bands=bands,
            stretch=about["stretch"],
            chip_size=side,
            seasons=seasons,
            images=images,
            file_index=file_index,
            row=row,
            valid=np.array(table["valid"].to_pylist(), bool).reshape(count, PERIODS, seasons),
            location_id=tuple(table["location_id"].to_pylist()),
            lonlat=np.column_stack([table["lon"].to_numpy(), table["lat"].to_numpy()]),
        )


def _map(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r").view(np.ndarray)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"{folder}: the pack is damaged ({' '.join(what.split())}); delete the folder and build it again")
