"""Land or ocean: the one-kilometre mask of `global-land-mask` (lakes count as land), or polygons that the user provides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from caco_assets.sampling.polygons import covered, read_polygons
from caco_assets.sampling.sphere import Floats
from caco_assets.settings import Settings

Mask = Callable[[Floats, Floats], NDArray[np.bool_]]
"""Which of the points (lon, lat), each (N,) in degrees, lie on land."""


def is_land(lon: Floats, lat: Floats) -> NDArray[np.bool_]:
    """Whether each point (N,) in degrees lies on land by `global-land-mask`."""
    from global_land_mask import globe

    # the mask's own lookup overwrites what it is given
    return np.asarray(globe.is_land(lat.copy(), lon.copy()), bool)


def land_of(settings: Settings) -> Mask:
    """The mask of the polygons `sampling.land`, else `is_land`.

    Raises:
        UserError: the file cannot be used.
    """
    if settings.sampling.land is None:
        return is_land
    shapes = read_polygons(settings.home / settings.sampling.land.expanduser(), "sampling.land")
    return lambda lon, lat: covered(shapes, lon, lat)


def coarse_land(step: int = 60) -> NDArray[np.bool_]:
    """Every `step`-th point of the mask as a picture of the world, north up: (21600 / step, 43200 / step)."""
    lon = -180 + (np.arange(0, 43200, step) + step / 2) / 120
    lat = 90 - (np.arange(0, 21600, step) + step / 2) / 120
    grid_lon, grid_lat = np.meshgrid(lon, lat)
    return is_land(grid_lon.ravel(), grid_lat.ravel()).reshape(grid_lon.shape)
