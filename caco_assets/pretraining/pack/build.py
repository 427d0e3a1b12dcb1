"""Builds a pack from the chips of an archive: one stretch, a few large files, places in the order of the chips."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.pretraining.encoder.stretch import Stretch
from caco_assets.pretraining.pack.format import DESCRIPTION, PERIODS, SCHEMA, TABLE, file_hashes

FILE_BYTES = 2 << 30
"""Largest size of an images file: practical for object stores and memory mapping."""
IMAGES = "images-{:04d}.npy"


class Chip(Protocol):
    """One clear date of one place in the archive."""

    @property
    def location_id(self) -> str: ...  # noqa: D102
    @property
    def period(self) -> int: ...  # noqa: D102
    @property
    def season(self) -> int: ...  # noqa: D102
    @property
    def lon(self) -> float: ...  # noqa: D102
    @property
    def lat(self) -> float: ...  # noqa: D102
    @property
    def pixels(self) -> np.ndarray:
        """uint16 (bands, H, W), reflectance × 10 000."""
        ...


def build(
    chips: Iterable[Chip],
    target: Path,
    *,
    bands: tuple[str, ...],
    archive_bands: tuple[str, ...],
    stretch: str,
    chip_size: int,
    seasons: int,
    min_seasons: int,
    total: int,
) -> Facts:
    """Write a pack. The same chips give the same bytes.

    Args:
        chips: sorted by location, period, season, each at most once.
        target: folder to create; an incomplete one is rebuilt from the start.
        bands: bands of the pack, in this order.
        archive_bands: bands of the chips, in their order.
        stretch: a name in `stretch.KINDS`.
        chip_size: side of the chips in pixels.
        seasons: maximum number of dates per period; missing ones are zeros and not valid.
        min_seasons: places with fewer valid dates in either period are skipped.
        total: number of chips, for the progress display.

    Returns:
        Counts of places and dates, and the contents of the pack.

    Raises:
        UserError: a band, a size or the order of the chips is wrong, or no place has enough dates.
    """
    chosen = Stretch.named(stretch, bands)
    tables, channels = chosen.tables(), _channels(bands, archive_bands)
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    shape = (PERIODS, seasons, chip_size, chip_size, len(bands))
    rows: list[dict[str, object]] = []
    left_out, dates = 0, 0
    progress = Progress("pack", total, "chips")
    with _Writer(target, shape) as writer:
        for location_id, group in _places(chips):
            images, valid = np.zeros(shape, np.uint8), np.zeros(shape[:2], bool)
            lon = lat = 0.0
            for chip in group:
                _check(chip, (len(archive_bands), chip_size, chip_size), valid)
                for c, channel in enumerate(channels):
                    images[chip.period, chip.season, :, :, c] = tables[c][chip.pixels[channel]]
                valid[chip.period, chip.season] = True
                lon, lat = chip.lon, chip.lat
                progress.advance()
            if valid.sum(axis=1).min() < min_seasons:
                left_out += 1
                continue
            name, row = writer.append(images)
            dates += int(valid.sum())
            fields = {"location_id": location_id, "shard_file": name, "row": row, "lon": lon, "lat": lat}
            sums = [zlib.crc32(image) for image in images.reshape(-1, *shape[2:])]
            rows.append({**fields, "valid": valid.ravel().tolist(), "crc32": sums})
    progress.close()
    if not rows:
        raise UserError(
            f"min_seasons={min_seasons}: none of the archive's {left_out} places has that many clear dates in both periods; "
            "lower imagery.min_seasons, or widen the windows"
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), target / TABLE)
    description = {
        "bands": bands,
        "stretch": stretch,
        "stretch_table_sha256": chosen.sha256(),
        "chip_size": chip_size,
        "seasons": seasons,
        "count": len(rows),
        "files": writer.files,
    }
    (target / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
    facts = {"places": len(rows), "places_left_out": left_out, "dates": dates, "files": len(writer.files)}
    return {**facts, "bands": list(bands), "stretch": stretch, "stretch_table_sha256": chosen.sha256()}


class _Writer:
    """Appends places to `.npy` files of at most `FILE_BYTES` and hashes the written bytes."""

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.files: list[dict[str, object]] = []
        self._folder, self._shape = folder, shape
        self._rows_per_file = max(1, FILE_BYTES // int(np.prod(shape)))
        self._stream: BinaryIO | None = None
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._finish()

    def append(self, images: np.ndarray) -> tuple[str, int]:
        """File name and row of the place."""
        if self._rows == self._rows_per_file:
            self._finish()
        name = IMAGES.format(len(self.files))
        if self._stream is None:
            self._stream = (self._folder / name).open("wb")
            self._header(self._stream)
        self._stream.write(images.tobytes())
        self._rows += 1
        return name, self._rows - 1

    def _header(self, stream: BinaryIO) -> None:
        # numpy pads the header so that the first axis can grow: once the rows are known, a header of the same length replaces it
        fields = {"descr": "|u1", "fortran_order": False, "shape": (self._rows, *self._shape)}
        npy.write_array_header_1_0(stream, fields)

    def _finish(self) -> None:
        if self._stream is None:
            return
        self._stream.seek(0)
        self._header(self._stream)
        self._stream.close()
        path = Path(self._stream.name)
        self.files.append({"name": path.name, "rows": self._rows, **file_hashes(path)})
        self._stream, self._rows = None, 0


def _channels(bands: tuple[str, ...], archive_bands: tuple[str, ...]) -> list[int]:
    if missing := [band for band in bands if band not in archive_bands]:
        raise UserError(
            f"pretraining.bands: the archive has no {', '.join(missing)}; add it to imagery.bands and ingest again, or leave it out"
        )
    return [archive_bands.index(band) for band in bands]


def _places(chips: Iterable[Chip]) -> Iterator[tuple[str, Iterator[Chip]]]:
    before = ""
    for location_id, group in groupby(chips, key=lambda chip: chip.location_id):
        if location_id <= before:
            raise UserError(f"archive: place {location_id} comes after {before}; its shards are not in order, ingest them again")
        before = location_id
        yield location_id, group


def _check(chip: Chip, shape: tuple[int, ...], valid: np.ndarray) -> None:
    name = f"archive: chip {chip.location_id}/p{chip.period}s{chip.season}"
    if chip.period not in range(PERIODS) or chip.season not in range(valid.shape[1]) or valid[chip.period, chip.season]:
        raise UserError(f"{name} is there twice, or is not one of {PERIODS} periods × {valid.shape[1]} seasons; ingest again")
    if chip.pixels.shape != shape or chip.pixels.dtype != np.uint16:
        raise UserError(f"{name} is {chip.pixels.dtype} {chip.pixels.shape}, not uint16 {shape}; ingest again")
