"""Writes the chips of an archive as loose files: GeoTIFFs as they are, or the layout that SeCo and CACo publish."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import rasterio
from rasterio.io import MemoryFile

from caco_assets.core.errors import UserError
from caco_assets.core.parquet import count_rows
from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.imagery.archive.shard import INDEX, INDEX_ADVICE, member_name, read_bytes, read_index, shard_folders
from caco_assets.imagery.archive.tar_store import open_tar
from caco_assets.imagery.archive.verify import is_safe_member
from caco_assets.imagery.scenes.radiometry import UNITS
from caco_assets.imagery.seco_layout.layout import METADATA, OWN, published_name

Kind = Literal["uint16", "uint8"]
PUBLISHED_UNITS = 255
"""Published numbers are uint8 = reflectance × 255."""
_COLUMNS = (
    *("location_id", "period", "season", "datetime", "item_id", "clear_fraction", "cloud_cover", "status"),
    *("offset", "length", "sha256", "lon", "lat"),
)
_PROFILE = {"driver": "GTiff", "compress": "deflate", "predictor": 2, "count": 1}

Row = Mapping[str, Any]


def export_tifs(archive: Path, target: Path) -> Facts:
    """Write every chip as `L0000012/p0s3.tif`, byte for byte as archived.

    Raises:
        UserError: the archive is empty, or an index names a file outside of `target`.
    """

    def write(folder: Path, stream: IO[bytes], rows: list[Row]) -> None:
        for row in rows:
            (folder / Path(_name(row)).name).write_bytes(read_bytes(stream, row))

    return _export(archive, target, lambda row: Path(_name(row)).parts[0], write)


def export_published(archive: Path, target: Path, kind: Kind = "uint16") -> Facts:
    """Write every chip as `000012/20200715T105031/B4.tif` and so on, one file per band, with a `metadata.json` per date.

    Args:
        archive: folder of the shards.
        target: folder of the place folders; an existing place is overwritten.
        kind: `uint16` keeps the archive's numbers (an import gives the same chips again); `uint8` is reflectance × 255 to the
            nearest, what the published loaders expect.

    Raises:
        UserError: the archive is empty, or an index names a file outside of `target`.
    """

    def write(folder: Path, stream: IO[bytes], rows: list[Row]) -> None:
        for row in rows:
            _write_date(folder / f"{row['datetime']:%Y%m%dT%H%M%S}", read_bytes(stream, row), row, kind)

    return _export(archive, target, lambda row: f"{_number(row):06d}", write)


def _export(archive: Path, target: Path, folder_of: Any, write: Any) -> Facts:
    shards = shard_folders(archive)
    if not shards:
        raise UserError(f"{archive}: the archive is empty; ingest it first")
    target.mkdir(parents=True, exist_ok=True)
    places = chips = 0
    progress = Progress("export", sum(count_rows(shard / INDEX, INDEX_ADVICE) for shard in shards), "chips")
    for shard in shards:
        rows = read_index(shard, _COLUMNS).to_pylist()
        with open_tar(shard) as stream:
            for _, group in groupby(rows, key=lambda row: row["location_id"]):
                members = list(group)
                _whole(target / folder_of(members[0]), lambda folder, own=members: write(folder, stream, own))
                places, chips = places + 1, chips + len(members)
                progress.advance(len(members))
    progress.close()
    return {"places": places, "chips": chips}


def _whole(folder: Path, write: Any) -> None:
    """Write a place's folder atomically."""
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    write(scratch)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)


def _write_date(folder: Path, data: bytes, row: Row, kind: Kind) -> None:
    folder.mkdir()
    with MemoryFile(data) as memory, memory.open(driver="GTiff") as chip:
        place = {"crs": chip.crs, "transform": chip.transform, "width": chip.width, "height": chip.height}
        for band, pixels in _layers(chip, kind):
            # the published uint8 has no value for no data
            nodata = 0 if kind == "uint16" else None
            profile = {**_PROFILE, **place, "dtype": kind, "nodata": nodata}
            with rasterio.open(folder / f"{published_name(band)}.tif", "w", **profile) as raster:
                raster.write(pixels, 1)
                if kind == "uint16":
                    raster.scales = (1 / UNITS,)
    (folder / METADATA).write_text(json.dumps(_metadata(row, folder.name), indent=1) + "\n")


def _layers(chip: Any, kind: Kind) -> Iterator[tuple[str, np.ndarray]]:
    for number, band in enumerate(chip.descriptions, start=1):
        pixels = chip.read(number)
        if kind == "uint8":
            # to the nearest, in whole numbers
            pixels = np.minimum((pixels.astype(np.int64) * PUBLISHED_UNITS * 2 + UNITS) // (2 * UNITS), 255).astype(np.uint8)
        yield band, pixels


def _metadata(row: Row, name: str) -> dict[str, Any]:
    kept = {key: row[key] for key in ("location_id", "lon", "lat", "period", "season", "item_id", "clear_fraction", "status")}
    scene = {"system:index": name, "system:time_start": round(row["datetime"].timestamp() * 1000)}
    if row["cloud_cover"] is not None:
        scene["CLOUDY_PIXEL_PERCENTAGE"] = row["cloud_cover"]
    return {**scene, OWN: {**kept, "datetime": row["datetime"].isoformat()}}


def _name(row: Row) -> str:
    name = member_name(row["location_id"], row["period"], row["season"])
    if not is_safe_member(name) or len(Path(name).parts) != 2:
        raise UserError(
            f"location_id={row['location_id']!r}: leads out of the folder; the index is not one of ours, nothing more is written"
        )
    return name


def _number(row: Row) -> int:
    identity = row["location_id"]
    if not (identity.startswith("L") and identity[1:].isdecimal()):
        raise UserError(f"location_id={identity!r}: the layout names a place by its number; needs L and digits")
    return int(identity[1:])
