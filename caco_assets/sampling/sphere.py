"""Geometry on the sphere: points, distances, and minimum spacing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

EARTH_RADIUS_KM = 6371.0088
"""Mean radius of WGS 84 (IUGG)."""

Floats = NDArray[np.float64]

BLOCK = (512, 16_384)
"""Minimum and maximum number of points that `Spacing` compares at a time."""


def destination(lon: Floats, lat: Floats, bearing: Floats, distance_km: Floats) -> tuple[Floats, Floats]:
    """The points reached from (lon, lat) by a great circle: the direct problem on the sphere.

    Args:
        lon: degrees, (N,).
        lat: degrees, (N,).
        bearing: radians clockwise from north, (N,).
        distance_km: along the surface, (N,).

    Returns:
        Longitude in [-180, 180) and latitude in degrees.
    """
    phi, angle = np.radians(lat), distance_km / EARTH_RADIUS_KM
    sin_lat = np.sin(phi) * np.cos(angle) + np.cos(phi) * np.sin(angle) * np.cos(bearing)
    east = np.sin(bearing) * np.sin(angle) * np.cos(phi)
    turn = np.arctan2(east, np.cos(angle) - np.sin(phi) * sin_lat)
    there = (lon + np.degrees(turn) + 180) % 360 - 180
    return there, np.degrees(np.arcsin(np.clip(sin_lat, -1, 1)))


def unit_vectors(lon: Floats, lat: Floats) -> Floats:
    """Points in degrees as vectors on the unit sphere, (N, 3)."""
    lam, phi = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)


def chord(distance_km: float) -> float:
    """Length of the straight line, on the unit sphere, between points at this distance on the surface."""
    return float(2 * np.sin(min(distance_km / EARTH_RADIUS_KM, np.pi) / 2))


def distance_km(lon: Floats, lat: Floats, other_lon: Floats, other_lat: Floats) -> Floats:
    """Great-circle distances in kilometres (haversine, so that small ones are exact)."""
    phi, other_phi = np.radians(lat), np.radians(other_lat)
    half = np.sin((other_phi - phi) / 2) ** 2
    half += np.cos(phi) * np.cos(other_phi) * np.sin(np.radians(other_lon - lon) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))


class Spacing:
    """Accepts points in order unless an accepted one is closer than a distance; works in blocks.

    Two search trees hold the accepted points: a large one, rebuilt only when the small one has grown to a quarter of it, so that
    a million points cost a few dozen builds.
    """

    def __init__(self, min_distance_km: float) -> None:
        self._reach = chord(min_distance_km)
        self._settled = np.empty((0, 3))
        self._recent = np.empty((0, 3))
        self._trees: list[KDTree] = []

    def accept(self, points: Floats) -> NDArray[np.bool_]:
        """Which of the unit vectors (N, 3) are accepted, as if added one by one in this order."""
        if self._reach == 0:
            return np.ones(len(points), bool)
        accepted, start = [np.empty(0, bool)], 0
        while start < len(points):
            # where most candidates are rejected, few are accepted and the blocks stay small: pairs grow as the block's square
            size = int(np.clip((len(self._settled) + len(self._recent)) // 4, *BLOCK))
            accepted.append(self._accept(points[start : start + size]))
            start += size
        return np.concatenate(accepted)

    def _accept(self, points: Floats) -> NDArray[np.bool_]:
        alone = np.ones(len(points), bool)
        for tree in self._trees:
            nearest, _ = tree.query(points[alone], distance_upper_bound=self._reach)
            alone[alone] = nearest >= self._reach  # infinite if none is that close
        order = np.flatnonzero(alone)
        pairs = KDTree(points[order]).query_pairs(self._reach, output_type="ndarray")
        # sorted by the earlier point: it is accepted or rejected before it can reject a later one
        for first, second in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
            if alone[order[first]]:
                alone[order[second]] = False
        self._remember(points[alone])
        return alone

    def _remember(self, points: Floats) -> None:
        self._recent = np.concatenate([self._recent, points])
        if 4 * len(self._recent) > len(self._settled):
            self._settled = np.concatenate([self._settled, self._recent])
            self._recent = self._recent[:0]
            self._trees = [KDTree(self._settled)]
        else:
            self._trees = [self._trees[0], KDTree(self._recent)]
