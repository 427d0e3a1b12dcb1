"""WGS 84 to UTM in plain Python: the generator may not import a projection library.

Krüger's series to the fifth order of the third flattening, C. F. F. Karney, "Transverse Mercator with an accuracy of a few
nanometers", J. Geodesy 85 (2011).
"""

from __future__ import annotations

import math

_A = 6378137.0
_F = 1 / 298.257223563
_K0 = 0.9996
_N = _F / (2 - _F)
_E = math.sqrt(_F * (2 - _F))
_RADIUS = _A / (1 + _N) * (1 + _N**2 / 4 + _N**4 / 64 + _N**6 / 256)
_ALPHA = (
    _N / 2 - 2 * _N**2 / 3 + 5 * _N**3 / 16 + 41 * _N**4 / 180 - 127 * _N**5 / 288,
    13 * _N**2 / 48 - 3 * _N**3 / 5 + 557 * _N**4 / 1440 + 281 * _N**5 / 630,
    61 * _N**3 / 240 - 103 * _N**4 / 140 + 15061 * _N**5 / 26880,
    49561 * _N**4 / 161280 - 179 * _N**5 / 168,
    34729 * _N**5 / 80640,
)


def epsg_of(lon: float, lat: float) -> int:
    """EPSG code of the UTM zone that holds a point (326zz north, 327zz south; no exceptions for Norway and Svalbard)."""
    zone = math.floor((lon + 180.0) / 6.0) % 60 + 1
    return (32600 if lat >= 0 else 32700) + zone


def project(lon: float, lat: float, epsg: int) -> tuple[float, float]:
    """Easting and northing in metres, rounded to the micrometre (machines differ beyond it)."""
    middle = (epsg % 100) * 6 - 183
    lam = math.radians((lon - middle + 180.0) % 360.0 - 180.0)
    phi = math.radians(lat)
    conformal = math.sinh(math.atanh(math.sin(phi)) - _E * math.atanh(_E * math.sin(phi)))
    xi = math.atan2(conformal, math.cos(lam))
    eta = math.asinh(math.sin(lam) / math.hypot(conformal, math.cos(lam)))
    north = xi + sum(a * math.sin(2 * k * xi) * math.cosh(2 * k * eta) for k, a in enumerate(_ALPHA, 1))
    east = eta + sum(a * math.cos(2 * k * xi) * math.sinh(2 * k * eta) for k, a in enumerate(_ALPHA, 1))
    false_northing = 10_000_000.0 if epsg >= 32700 else 0.0
    return round(500_000.0 + _K0 * _RADIUS * east, 6), round(false_northing + _K0 * _RADIUS * north, 6)
