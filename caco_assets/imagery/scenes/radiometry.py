"""From a provider's digital numbers to the archive's: uint16 surface reflectance × 10 000, harmonised, 0 = no data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNITS = 10_000
"""Archive numbers per unit of reflectance: what Sentinel-2 L2A uses (QUANTIFICATION_VALUE)."""
OFFSET_BASELINE = "04.00"
OFFSET = -0.1
"""From processing baseline 04.00 (25 January 2022) on, L2A products carry BOA_ADD_OFFSET = -1000: reflectance =
(DN - 1000) / 10 000 (Copernicus SentiWiki, "S2 Products", Level-2A)."""
# Earth Search subtracted the offset from the pixels and kept `offset: -0.1` in raster:bands, so the flag takes precedence.
APPLIED_KEYS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")


@dataclass(frozen=True)
class Radiometry:
    """The meaning of a band's numbers: reflectance = DN · scale + offset, except `nodata`."""

    scale: float
    offset: float
    nodata: float | None = 0.0
    """Always finite: a number that is not finite is no data in any case, and None means that every finite one is data."""


def radiometry_of(facts: Mapping[str, Any], properties: Mapping[str, Any], baseline: str | None) -> Radiometry | None:
    """Scale and offset of one band, each applied once.

    `raster:bands` takes precedence; a missing scale or offset follows from the processing baseline; an item whose pixels
    already had the offset removed (`…:boa_offset_applied`) has offset 0 regardless.

    Args:
        facts: the band's entry of `raster:bands` (or the `raster:*` fields of STAC 1.1 beside the asset's own).
        properties: of the item.
        baseline: `NN.NN`, or none when unknown.

    Returns:
        None if neither gives the meaning of the numbers.

    Raises:
        ValueError: scale, offset or nodata is no number; the message says which.
    """
    scale = _number(facts, "scale", "raster:scale")
    offset = _number(facts, "offset", "raster:offset")
    if scale is None and baseline is None:
        return None
    if any(properties.get(key) is True for key in APPLIED_KEYS):
        offset = 0.0
    elif offset is None:
        offset = OFFSET if baseline is not None and baseline >= OFFSET_BASELINE else 0.0
    nodata = _number(facts, "nodata") if "nodata" in facts else 0.0 if baseline is not None else None
    return Radiometry(1 / UNITS if scale is None else scale, offset, finite_nodata(nodata))


def _number(facts: Mapping[str, Any], *keys: str) -> float | None:
    """The value of the first key that is there; STAC also writes `"nan"` and `"inf"`."""
    for key in keys:
        if key in facts:
            value = facts[key]
            try:
                number = None if value is None else float(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"says {key}={str(value)[:60]!r}, which is no number") from error
            if number is not None and not math.isfinite(number) and key != "nodata":
                raise ValueError(f"says {key}={number}, which is no finite number")
            return number
    return None


def finite_nodata(nodata: float | None) -> float | None:
    """A declared no-data value as `Radiometry` holds it: NaN and infinity become None (see there)."""
    return None if nodata is None or not math.isfinite(nodata) else float(nodata)


def missing(numbers: NDArray, nodata: float | None) -> NDArray[np.bool_]:
    """Numbers that are no data, same shape: the declared value, compared in their own type, and those that are not finite."""
    empty = np.zeros(numbers.shape, bool)
    if nodata is not None and math.isfinite(nodata):
        # float32 pixels hold the nearest float32 of a value such as -3.4e38
        empty = numbers == (numbers.dtype.type(nodata) if np.issubdtype(numbers.dtype, np.floating) else nodata)
    if np.issubdtype(numbers.dtype, np.floating):
        empty |= ~np.isfinite(numbers)
    return empty


def has_data(numbers: NDArray, nodata: float | None) -> NDArray[np.bool_]:
    """Pixels that are measured in every band: (H, W) from (bands, H, W).

    A declared no-data value and numbers that are not finite are never measurements, so a pixel with a gap in one band is no data in
    all. The exception is the value 0, which empties a pixel only if all bands are 0: Sentinel-2 declares 0, and a single 0 among
    other values is a very dark pixel (deep water in the short-wave infrared) whose negative reflectance the producer clipped.
    """
    if nodata != 0:
        return ~missing(numbers, nodata).any(axis=0)
    return ~(missing(numbers, None).any(axis=0) | (numbers == 0).all(axis=0))


def harmonize(
    numbers: NDArray, scale: NDArray[np.float64], offset: NDArray[np.float64], valid: NDArray[np.bool_]
) -> NDArray[np.uint16]:
    """Digital numbers as uint16 reflectance × 10 000.

    Args:
        numbers: (bands, H, W) of any dtype.
        scale: reflectance per digital number, (bands,).
        offset: reflectance at digital number 0, (bands,).
        valid: (H, W); elsewhere the result is 0.

    Returns:
        (bands, H, W); valid pixels are in 1 … 65535, so that 0 always means no data.
    """
    gain = (scale * UNITS).astype(np.float32)[:, None, None]
    shift = (offset * UNITS).astype(np.float32)[:, None, None]
    units = np.rint(numbers.astype(np.float32) * gain + shift)
    return np.where(valid, np.clip(np.nan_to_num(units, nan=1.0), 1, 65_535), 0).astype(np.uint16)
