"""Reflectance of materials in the twelve Sentinel-2 bands of a level-2A product.

Values are rounded typical surface reflectances x 10 000 in the order of `BANDS`, in the range of the vegetation, soil, water and
man-made entries of the USGS Spectral Library Version 7 (Kokaly et al. 2017, doi:10.3133/ds1035) and the ECOSTRESS library
(Meerdink et al. 2019, doi:10.1016/j.rse.2019.05.015) seen through Sentinel-2's bands; at 10 m roofs and roads are mixed with
what lies between them, so they are less extreme than the pure materials.
"""

from __future__ import annotations

import numpy as np

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")

_TABLE: dict[str, tuple[int, ...]] = {
    "grass": (300, 380, 700, 420, 1150, 3100, 3800, 4000, 4150, 4150, 2200, 1050),
    "crop": (250, 310, 620, 320, 950, 3300, 4200, 4400, 4500, 4500, 1900, 850),
    "rape": (350, 450, 1150, 950, 1700, 3200, 3700, 3900, 4000, 4000, 2000, 1000),
    "deciduous": (180, 230, 450, 250, 750, 2500, 3150, 3300, 3450, 3450, 1650, 720),
    "conifer": (140, 170, 310, 190, 500, 1450, 1800, 1900, 2000, 2050, 900, 400),
    "bare trees": (300, 380, 520, 560, 850, 1350, 1550, 1650, 1800, 1850, 1800, 1150),
    "shade": (90, 110, 170, 120, 250, 700, 850, 900, 950, 950, 450, 220),
    "dry grass": (600, 800, 1200, 1500, 1900, 2250, 2450, 2650, 2800, 2850, 3400, 2500),
    "shrub": (280, 360, 540, 520, 880, 1550, 1800, 1900, 2050, 2100, 1900, 1200),
    "soil brown": (600, 780, 1100, 1430, 1700, 1950, 2150, 2300, 2450, 2500, 3100, 2600),
    "soil dark": (450, 540, 700, 880, 1050, 1200, 1350, 1450, 1550, 1600, 2100, 1850),
    "soil red": (500, 640, 1000, 1850, 2250, 2450, 2600, 2700, 2850, 2900, 3600, 3000),
    "soil pale": (1000, 1300, 1800, 2300, 2600, 2750, 2900, 3050, 3150, 3200, 4000, 3500),
    "soil grey": (800, 980, 1230, 1450, 1620, 1750, 1850, 1950, 2050, 2100, 2700, 2400),
    "rock": (1100, 1300, 1600, 1850, 2000, 2100, 2200, 2300, 2350, 2400, 2900, 2600),
    "asphalt": (750, 860, 980, 1060, 1140, 1210, 1270, 1320, 1370, 1400, 1600, 1500),
    "concrete": (1350, 1550, 1800, 1980, 2100, 2180, 2250, 2320, 2380, 2400, 2600, 2450),
    "tile": (620, 760, 1050, 1700, 2050, 2250, 2400, 2500, 2600, 2650, 3000, 2600),
    "slate": (520, 590, 680, 750, 820, 890, 940, 1000, 1060, 1100, 1300, 1250),
    "brown roof": (640, 760, 950, 1150, 1300, 1420, 1520, 1620, 1720, 1760, 2100, 1950),
    "white roof": (2700, 3200, 3450, 3550, 3600, 3650, 3650, 3650, 3650, 3650, 3300, 3000),
    "metal": (1700, 1950, 2150, 2250, 2300, 2350, 2400, 2450, 2480, 2500, 2400, 2250),
    "blue roof": (1350, 1700, 1650, 1250, 1250, 1350, 1450, 1550, 1600, 1650, 1600, 1450),
    "water clear": (340, 270, 180, 90, 70, 50, 45, 40, 35, 30, 15, 10),
    "water turbid": (600, 740, 1020, 850, 780, 420, 390, 330, 250, 200, 60, 40),
    "water green": (300, 390, 640, 330, 360, 210, 200, 160, 120, 100, 40, 30),
    "burnt": (300, 340, 400, 470, 560, 680, 780, 880, 980, 1020, 1900, 1950),
}

MATERIALS = tuple(_TABLE)
SPECTRA = np.array([_TABLE[name] for name in MATERIALS], np.float64) / 10_000.0
"""Reflectance of each of `MATERIALS`, shape (materials, 12)."""

SOILS = ("soil brown", "soil dark", "soil red", "soil pale", "soil grey")
ROOFS = ("tile", "slate", "brown roof", "white roof", "metal")


def spectrum(name: str) -> np.ndarray:
    """Reflectance of one material, shape (12,)."""
    return SPECTRA[MATERIALS.index(name)]
