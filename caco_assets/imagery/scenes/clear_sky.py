"""Clear-sky masks: from the scene classification (SCL) if there is one, otherwise from reflectance."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

SCL_CLEAR = (2, 4, 5, 6, 7, 11)
"""Classes of the Sentinel-2 scene classification that count as clear: 2 dark area or topographic shadow, 4 vegetation, 5 bare,
6 water, 7 unclassified (mostly ground of unusual colour), 11 snow or ice (a state of the ground, and part of its seasons).
Not clear: 0 no data, 1 saturated or defective, 3 cloud shadow, 8 and 9 cloud, 10 thin cirrus (it changes the colour)."""
SCL_EMPTY = 0

TEST_BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
"""Bands of the reflectance test; it needs B02 and B04, the others make it more conservative."""

# Zhu & Woodcock (2012), "Object-based cloud and cloud shadow detection in Landsat imagery", eq. 1 to 5 (potential cloud)
HAZE = 0.08
WHITENESS = 0.7
NDVI = 0.8
SWIR = 0.03
# Hall et al. (1995): snow is darker in the short-wave infrared than cloud; Fmask's own limit of 0.8 calls much of it cloud
NDSI_SNOW = 0.4


def clear_test(bands: Collection[str]) -> str:
    """Which clear-sky test the bands allow: `scl`, `reflectance`, or `nodata` alone."""
    if "SCL" in bands:
        return "scl"
    return "reflectance" if {"B02", "B04"} <= set(bands) else "nodata"


def clear_in_scl(scl: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Clear pixels of a scene classification, same shape."""
    return np.isin(scl, SCL_CLEAR)


def clear_in_reflectance(reflectance: Mapping[str, NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Clear pixels by the spectral cloud test of Fmask, without its thermal part.

    A pixel is cloud when all hold: the haze-optimised transform B02 − 0.5·B04 exceeds 0.08 (haze and cloud raise blue over
    red; bright soil does not), the visible bands are white (sum of the absolute deviations from their mean below 0.7 of it), and,
    where the bands are there, NDVI < 0.8, B12 > 0.03 (water is below) and NDSI < 0.4 (snow is above).

    Args:
        reflectance: band → (H, W) of reflectance in [0, ~1.5]. Without B02 and B04 there is no test, and all pixels are clear:
            only those without data then count against a chip (`clear_test` names which test a catalog's bands allow).
    """
    if clear_test(reflectance) == "nodata":
        return np.ones(next(iter(reflectance.values())).shape, bool)
    blue, red = reflectance["B02"], reflectance["B04"]
    visible = [reflectance[band] for band in ("B02", "B03", "B04") if band in reflectance]
    # negative reflectance over dark water: the floor keeps the ratios finite and their sign
    mean = np.maximum(np.mean(visible, axis=0), 1e-3)
    cloud = blue - 0.5 * red > HAZE
    cloud &= np.sum([np.abs(band - mean) for band in visible], axis=0) / mean < WHITENESS
    if "B08" in reflectance:
        cloud &= _index(reflectance["B08"], red) < NDVI
    if "B12" in reflectance:
        cloud &= reflectance["B12"] > SWIR
    if "B03" in reflectance and "B11" in reflectance:
        cloud &= _index(reflectance["B03"], reflectance["B11"]) < NDSI_SNOW
    return ~cloud


def _index(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.floating]:
    """Normalized difference."""
    return (one - other) / np.maximum(one + other, 1e-3)
