"""Land or ocean, from the one-kilometre mask of `global-land-mask` (lakes count as land)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def is_land(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each point (N,) in degrees lies on land."""
    from global_land_mask import globe

    # the mask's own lookup overwrites what it is given
    return np.asarray(globe.is_land(lat.copy(), lon.copy()), bool)


def coarse_land(step: int = 60) -> NDArray[np.bool_]:
    """Every `step`-th point of the mask as a picture of the world, north up: (21600 / step, 43200 / step)."""
    lon = -180 + (np.arange(0, 43200, step) + step / 2) / 120
    lat = 90 - (np.arange(0, 21600, step) + step / 2) / 120
    grid_lon, grid_lat = np.meshgrid(lon, lat)
    return is_land(grid_lon.ravel(), grid_lat.ravel()).reshape(grid_lon.shape)
