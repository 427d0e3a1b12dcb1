"""Finds test images that overlap the places the encoder was pretrained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from caco_assets.sampling.exclusion import Zones, known_zones
from caco_assets.sampling.polygons import clean
from caco_assets.settings import Settings


@dataclass(frozen=True)
class Overlap:
    """Places whose chips intersect an image."""

    places: int
    """Places compared."""
    met: tuple[str, ...]
    """`location_id` of those that intersect one."""


def overlap(settings: Settings, outlines: NDArray[np.float64]) -> Overlap:
    """Compare the places of `locations.parquet` with the outlines of images.

    Args:
        settings: of the profile: the location of its places, and the chip size.
        outlines: (N, 4, 2) corners in degrees.
    """
    from pyarrow import parquet

    table = parquet.read_table(settings.paths.locations, columns=["location_id", "lon", "lat"])
    lon, lat = (table[name].to_numpy() for name in ("lon", "lat"))
    zones = Zones(clean(np.asarray(shapely.polygons(outlines), object).reshape(-1)), chip_km(settings))
    met = np.asarray(table["location_id"].to_pylist(), object)[zones.touched(lon, lat)]
    return Overlap(len(lon), tuple(met.tolist()))


def chip_km(settings: Settings) -> float:
    """Side of a chip in km, with half a pixel on either side: its grid is moved onto multiples of the resolution."""
    return (settings.imagery.chip_size + 1) * settings.imagery.resolution / 1000


def zone_outlines(benchmark: str) -> NDArray[np.float64]:
    """(N, 4, 2) corners of the known zones of a benchmark, except those of training images."""
    boxes = [zone.box for zone in known_zones() if zone.benchmark == benchmark and zone.split != "train"]
    corners = [[(west, north), (east, north), (east, south), (west, south)] for west, south, east, north in boxes]
    return np.array(corners, np.float64).reshape(-1, 4, 2)
