"""The region in which places are drawn: a box of longitudes and latitudes, polygons, or both."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from caco_assets.core.errors import UserError
from caco_assets.sampling.polygons import Shapes, covered, enclosing_box, read_polygons
from caco_assets.sampling.sphere import Floats
from caco_assets.settings import Settings

Box = tuple[float, float, float, float]
"""west, south, east, north in degrees; west > east crosses the antimeridian."""


@dataclass(frozen=True)
class Region:
    """The region that keeps places; without box and polygons the whole Earth."""

    box: Box | None = None
    shapes: Shapes | None = field(default=None, compare=False)
    """Polygons in degrees."""

    def contains(self, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
        """Which points (N,) are inside box and polygons, their edges included."""
        good = in_box(self.box, lon, lat)
        if self.shapes is not None:
            good[good] = covered(self.shapes, lon[good], lat[good])
        return good

    @property
    def bounds(self) -> Box | None:
        """A box that contains the region: candidates outside it are always rejected."""
        return self.box if self.box is not None or self.shapes is None else enclosing_box(self.shapes)


def in_box(box: Box | None, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
    """Which points (N,) are in the box."""
    if box is None:
        return np.ones(len(lon), bool)
    west, south, east, north = box
    across = (lon >= west) & (lon <= east) if west <= east else (lon >= west) | (lon <= east)
    if 180 in (abs(west), abs(east)):
        across |= np.abs(lon) == 180  # one meridian with two names
    return across & (lat >= south) & (lat <= north)


def region_of(settings: Settings) -> Region:
    """The region of `sampling.region` and `sampling.region_file`.

    Raises:
        UserError: the box is empty or lies outside the Earth, or the file cannot be used.
    """
    sampling = settings.sampling
    if sampling.region is not None:
        west, south, east, north = sampling.region
        if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
            raise UserError(
                f"sampling.region={sampling.region}: needs west, south, east, north in degrees, south below north, "
                "longitudes from -180 to 180 (west > east crosses the antimeridian)"
            )
    if sampling.region_file is None:
        return Region(sampling.region)
    return Region(sampling.region, read_polygons(settings.home / sampling.region_file.expanduser(), "sampling.region_file"))
