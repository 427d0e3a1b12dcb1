"""From a provider's digital numbers to the archive's: uint16 surface reflectance × 10 000, harmonised, 0 = no data."""

from __future__ import annotations

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
    """
    scale = facts.get("scale", facts.get("raster:scale"))
    offset = facts.get("offset", facts.get("raster:offset"))
    if scale is None and baseline is None:
        return None
    if any(properties.get(key) is True for key in APPLIED_KEYS):
        offset = 0.0
    elif offset is None:
        offset = OFFSET if baseline is not None and baseline >= OFFSET_BASELINE else 0.0
    nodata = facts.get("nodata", 0 if baseline is not None else None)
    return Radiometry(1 / UNITS if scale is None else float(scale), float(offset), None if nodata is None else float(nodata))


def has_data(numbers: NDArray, nodata: float | None) -> NDArray[np.bool_]:
    """Valid pixels: (H, W) from (bands, H, W).

    A pixel is empty when every band is: a single 0 among other values is a very dark pixel (deep water in the short-wave
    infrared) whose negative reflectance a producer clipped.
    """
    empty = np.zeros(numbers.shape, bool) if nodata is None else numbers == nodata
    if np.issubdtype(numbers.dtype, np.floating):
        empty |= np.isnan(numbers)
    return ~empty.all(axis=0)


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
