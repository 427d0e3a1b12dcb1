"""A place and the pixel grid of its chips."""

from __future__ import annotations

from dataclasses import dataclass

from caco_assets.imagery.geometry.chip_grid import Grid


@dataclass(frozen=True)
class Place:
    """A place and its chips' grid."""

    location_id: str
    lon: float
    lat: float
    grid: Grid
