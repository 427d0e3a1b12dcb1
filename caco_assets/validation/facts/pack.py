"""Facts of the pack: whether its three parts (arrays, rows, `pack.json`) agree, and whether images have content."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from caco_assets.core.errors import UserError, one_line
from caco_assets.settings import Settings
from caco_assets.validation.facts.table import Frame, Table, missing_fields, numbers, read_parquet

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = ("location_id", "shard_file", "row", "lon", "lat", "valid")
JSON_FIELDS = ("bands", "stretch", "stretch_table_sha256", "chip_size", "seasons", "count", "files")
SAMPLED_ROWS = 256
"""Places whose images are checked: 256 rows of the embedded profile are 126 MB, read in about a second."""


def pack(settings: Settings) -> list[Table]:
    """`pack`: one row about the whole. `pack.files`: one per array. `pack.rows`: one per place. `pack.bands`: one per band.

    Raises:
        UserError: `pack.json` or `pack.parquet` is absent or unreadable.
    """
    folder = settings.paths.pack
    about = _read_json(folder / "pack.json")
    rows = read_parquet(folder / "pack.parquet", FIELDS)
    numbers(rows, ("row", "lon", "lat"))
    known = set(read_parquet(settings.paths.locations, ("location_id",))["location_id"])
    arrays = {str(file["name"]): _open(folder / file["name"]) for file in about.get("files") or []}
    side = settings.imagery.chip_size
    shape = (2, settings.imagery.seasons, side, side, len(settings.pretraining.packed_bands))
    sample = _sample(rows, arrays, shape, settings.seed)
    return [
        Table("pack", _whole(about, rows, arrays, settings)),
        Table("pack.files", _files(arrays, shape, _changed(folder, rows, sample))),
        Table("pack.rows", _rows(rows, arrays, sample, known, settings)),
        Table("pack.bands", _bands(sample, settings.pretraining.packed_bands)),
    ]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path}: does not exist; run the stage that makes it, then validate")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not readable as JSON ({error}); make it again") from error


def _open(path: Path) -> np.ndarray | str:
    """The memory-mapped array, or the problem with its file."""
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        return one_line(error)


def _whole(about: dict[str, Any], rows: Frame, arrays: dict[str, Any], settings: Settings) -> Frame:
    import pandas as pd

    held = sum(len(array) for array in arrays.values() if isinstance(array, np.ndarray))
    wanted = {
        "bands": list(settings.pretraining.packed_bands),
        "stretch": settings.pretraining.stretch,
        "chip_size": settings.imagery.chip_size,
        "seasons": settings.imagery.seasons,
    }
    differs = [f"{name}={about.get(name)!r} (settings: {value!r})" for name, value in wanted.items() if about.get(name) != value]
    fact = {
        "id": "pack.json",
        "fields_missing": ",".join(name for name in JSON_FIELDS if about.get(name) is None),
        "differs_from_settings": "; ".join(differs),
        "stretch_table_sha256": str(about.get("stretch_table_sha256") or ""),
        "rows_gap": len(rows) - int(about.get("count") or 0),
        "arrays_gap": held - int(about.get("count") or 0),
    }
    return pd.DataFrame([fact])


def _changed(folder: Path, rows: Frame, sample: dict[int, np.ndarray]) -> dict[str, str]:
    """File → the first sampled image in it whose bytes are not those that were written."""
    import pyarrow.parquet as pq

    if "crc32" not in pq.read_schema(folder / "pack.parquet").names:
        return {}
    sums, found = pq.read_table(folder / "pack.parquet", columns=["crc32"])["crc32"].to_pylist(), dict[str, str]()
    for index, images in sample.items():
        flat = images.reshape(-1, *images.shape[2:])  # (2·season, H, W, band)
        for number, (image, known) in enumerate(zip(flat, sums[index] or (), strict=False)):
            if zlib.crc32(np.ascontiguousarray(image)) != known:
                name = f"{rows['location_id'].iloc[index]} p{number // images.shape[1]}s{number % images.shape[1]}"
                found.setdefault(str(rows["shard_file"].iloc[index]), f"{name} has other bytes than when it was written")
    return found


def _files(arrays: dict[str, Any], shape: tuple[int, ...], changed: dict[str, str]) -> Frame:
    import pandas as pd

    rows = []
    for name, array in arrays.items():
        readable = isinstance(array, np.ndarray)
        wrong = readable and array.shape[1:] != shape
        rows.append(
            {
                "id": name,
                "unreadable": changed.get(name, "") if readable else array,
                "dtype": str(array.dtype) if readable else "uint8",
                "shape_wrong": f"{array.shape[1:]}, expected {shape}" if wrong else "",
            }
        )
    return pd.DataFrame(rows, columns=["id", "unreadable", "dtype", "shape_wrong"])


def _sample(rows: Frame, arrays: dict[str, Any], shape: tuple[int, ...], seed: int) -> dict[int, np.ndarray]:
    """Index of a row → its images `(2, season, H, W, band)`, for a seeded choice of rows whose array can be read."""
    places = zip(rows["shard_file"], rows["row"], strict=True)
    readable = [
        index
        for index, (file, row) in enumerate(places)
        if isinstance(array := arrays.get(str(file)), np.ndarray) and array.shape[1:] == shape and 0 <= row < len(array)
    ]
    chosen = np.random.default_rng(seed).permutation(readable)[:SAMPLED_ROWS] if readable else []
    return {int(i): np.asarray(arrays[rows["shard_file"].iloc[i]][int(rows["row"].iloc[i])]) for i in sorted(chosen)}


def _rows(rows: Frame, arrays: dict[str, Any], sample: dict[int, np.ndarray], known: set[str], settings: Settings) -> Frame:
    table = rows.drop(columns=["valid"])
    seasons = settings.imagery.seasons
    table["missing_fields"] = missing_fields(rows, FIELDS)
    table["location_id"] = rows["location_id"].fillna("").astype(str)
    table["id"] = table["location_id"]
    table["location_known"] = table["location_id"].isin(known)
    table["row_outside"] = [
        "" if isinstance(array := arrays.get(str(file)), np.ndarray) and 0 <= row < len(array) else f"{file}[{row:g}]"
        for file, row in zip(rows["shard_file"], rows["row"], strict=True)
    ]
    valid = [np.asarray(mask, dtype=bool) if mask is not None else np.zeros(0, dtype=bool) for mask in rows["valid"]]
    table["valid_length"] = [len(mask) for mask in valid]
    table["dates_early"] = [int(mask[:seasons].sum()) for mask in valid]
    table["dates_late"] = [int(mask[seasons:].sum()) for mask in valid]
    table["dates_fewest"] = table[["dates_early", "dates_late"]].min(axis=1)
    table["constant_images"] = [_constant(sample.get(index), valid[index], seasons) for index in range(len(rows))]
    return table


def _constant(images: np.ndarray | None, valid: np.ndarray, seasons: int) -> str:
    """Names of the valid dates whose image is one value in some band."""
    if images is None or len(valid) != 2 * seasons:
        return ""
    flat = images.reshape(2 * seasons, -1, images.shape[-1])  # (2·season, H·W, band)
    dead = (flat.min(axis=1) == flat.max(axis=1)).any(axis=1) & valid
    return ",".join(f"p{index // seasons}s{index % seasons}" for index in np.flatnonzero(dead))


def _bands(sample: dict[int, np.ndarray], bands: tuple[str, ...]) -> Frame:
    """Share of each band's sampled pixels at the two ends of the stretch."""
    import pandas as pd

    ends = {"dark_end": 0, "bright_end": 255}
    columns: dict[str, Any] = {"id": list(bands)}
    for name, value in ends.items():
        shares = [(images == value).mean(axis=(0, 1, 2, 3)) for images in sample.values()]
        columns[name] = np.mean(shares, axis=0) if shares else np.zeros(len(bands))
    return pd.DataFrame(columns)
