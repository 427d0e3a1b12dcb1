"""What a level-1C product shows: the light of the ground dimmed by sun and air, and the air's own light on top of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caco_assets.synthetic.earth import weather
from caco_assets.synthetic.earth.noise import Singles
from caco_assets.synthetic.earth.spectra import BANDS

_WATER_VAPOUR = 0.35
"""Share of B09's light that gets through."""


@dataclass(frozen=True)
class Column:
    """The whole column of air over a scene on a date."""

    air: float
    """Units of `weather.PATH`."""
    light: float
    """Brightness of the sun, 1 on average."""


def column(draw: np.random.Generator) -> Column:
    """A clean one, now and then a thick one."""
    air = 0.65 + 0.3 * float(draw.random()) + (1.2 * float(draw.random()) if draw.random() < 0.08 else 0.0)
    return Column(air, 0.86 + 0.28 * float(draw.random()))


def apparent(surface: Singles, band: str, over: Column) -> Singles:
    """Reflectance at the top of the atmosphere of surface reflectance in a band (not B10, which hardly sees the ground)."""
    path = np.float32(over.air * weather.PATH[BANDS.index(band)])
    seen = surface * np.float32(over.light) * (np.float32(1.0) - np.float32(1.3) * path) + path
    return seen * np.float32(_WATER_VAPOUR) if band == "B09" else seen
