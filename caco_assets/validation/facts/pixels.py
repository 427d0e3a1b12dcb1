"""Facts of pixels: what one chip in a shard's tar holds, and how the darkest targets moved between the two periods."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from caco_assets.core.errors import one_line
from caco_assets.imagery.archive.tar_store import open_tar
from caco_assets.settings import Settings
from caco_assets.validation.dark_targets import dark_level, dark_shift
from caco_assets.validation.facts.table import Frame, slot_id

SATURATED = 20_000
"""Reflectance 2: brighter than any cloud; higher values are an overflow or a wrong scale."""

PIXEL_COLUMNS = (
    "id", "location_id", "period", "season", "sha256_matches", "unreadable", "layout_wrong", "zero_share", "saturated_share",
    "median", "constant_bands", "dark",
)  # fmt: skip


def pixel_facts(shard: Path, chip: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Read one chip by its byte range and check every pixel.

    Args:
        shard: folder of the shard.
        chip: its row of `chips.parquet`.
        settings: with the bands, size and resolution of a chip.

    Returns:
        A row of `PIXEL_COLUMNS`; `dark` is the list of each band's first percentile over its valid pixels.
    """
    with open_tar(shard) as stream:
        stream.seek(int(chip["offset"]))
        data = stream.read(int(chip["length"]))
    facts: dict[str, Any] = dict.fromkeys(PIXEL_COLUMNS)
    facts.update(
        id=slot_id(chip["location_id"], chip["period"], chip["season"]),
        location_id=chip["location_id"],
        period=chip["period"],
        season=chip["season"],
        sha256_matches=hashlib.sha256(data).hexdigest() == chip["sha256"],
        unreadable="",
        layout_wrong="",
        constant_bands="",
    )
    pixels, problem, layout = _decode(data, chip, settings)
    if pixels is None:
        return {**facts, "unreadable": problem}
    valid = pixels > 0
    dark = dark_level(pixels).tolist()
    names = settings.imagery.bands if len(pixels) == len(settings.imagery.bands) else [f"band {i + 1}" for i in range(len(pixels))]
    constant = [name for name, band in zip(names, pixels, strict=True) if band.min() == band.max()]
    return {
        **facts,
        "layout_wrong": layout,
        "zero_share": float((~valid).mean()),
        "saturated_share": float((pixels >= SATURATED).mean()),
        "median": float(np.median(pixels[valid])) if valid.any() else np.nan,
        "constant_bands": ",".join(constant),
        "dark": dark,
    }


def _decode(data: bytes, chip: dict[str, Any], settings: Settings) -> tuple[np.ndarray | None, str, str]:
    """Pixels `(band, H, W)`, or None and the reason; and what differs from a chip's layout."""
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.io import MemoryFile

    imagery = settings.imagery
    try:
        with rasterio.Env(), MemoryFile(data) as memory, memory.open(driver="GTiff") as source:
            step, size = imagery.resolution, imagery.chip_size
            corner = source.transform.c / step, source.transform.f / step
            wrong = {
                f"dtype {source.dtypes[0]}": source.dtypes[0] != "uint16",
                f"{source.count} bands": source.count != len(imagery.bands),
                f"{source.height}x{source.width} px": (source.height, source.width) != (size, size),
                f"EPSG {source.crs and source.crs.to_epsg()}": not source.crs or source.crs.to_epsg() != chip["epsg"],
                f"nodata {source.nodata}": source.nodata != 0,
                f"pixels of {source.res[0]:g} m": not np.allclose(source.res, step),
                "grid not snapped to the resolution": not np.allclose(corner, np.round(corner), atol=1e-6),
            }
            return source.read(), "", ", ".join(name for name, bad in wrong.items() if bad)
    except RasterioError as error:
        return None, one_line(error), ""


def shift_of_dark_targets(pixels: Frame, bands: tuple[str, ...]) -> Frame:
    """One row per band: the difference between the darkest targets of the two periods, late minus early, as a digital number.

    0 if no place has the same season in both periods: there is nothing to compare.
    """
    import pandas as pd

    usable = pixels[pixels["dark"].map(lambda dark: isinstance(dark, list) and len(dark) == len(bands)).astype(bool)]
    chips = zip(usable["location_id"], usable["period"], usable["season"], usable["dark"], strict=True)
    shift, places = dark_shift({(place, period, season): np.array(dark) for place, period, season, dark in chips})
    return pd.DataFrame({"id": list(bands), "shift": shift if places else np.zeros(len(bands)), "places": places})
