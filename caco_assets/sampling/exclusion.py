"""Exclusion zones: no chip for pretraining may overlap a test set."""

from __future__ import annotations

import csv
import hashlib
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from caco_assets.core.errors import UserError
from caco_assets.sampling.footprints import read_footprints
from caco_assets.sampling.polygons import Shapes, clean, read_polygons
from caco_assets.sampling.sphere import Floats
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)

KNOWN = Path(__file__).with_name("zones") / "known.csv"
SLACK = 1.1
"""A chip is a square in its UTM zone; the box around it that runs along meridians is wider by cos γ + sin γ for a convergence γ,
and by the scale of the projection: 1.052 at the edge of the zone, 1.1 in the next zone."""
KM_PER_DEGREE_LAT, KM_PER_DEGREE_LON = 110.574, 111.320
"""The shortest degrees of WGS 84: of a meridian (at the equator), and of a parallel (times the cosine of its latitude)."""


@dataclass(frozen=True)
class Zone:
    """The footprint of one place of a test set, or a box that is certain to contain it."""

    benchmark: str
    name: str
    split: str
    """`train`, `test` or `any`."""
    box: tuple[float, float, float, float]
    """west, south, east, north in degrees."""
    precision: str
    """How the box was derived and how large its margin is."""
    source: str
    licence: str


@cache
def known_zones() -> tuple[Zone, ...]:
    """The zones that ship with the package."""
    with KNOWN.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    text = ("benchmark", "name", "split", "precision", "source", "licence")
    return tuple(
        Zone(
            **{name: row[name] for name in text},
            box=(float(row["west"]), float(row["south"]), float(row["east"]), float(row["north"])),
        )
        for row in rows
    )


def known_benchmarks() -> tuple[str, ...]:
    """Names of the benchmarks whose zones ship with the package."""
    return tuple(dict.fromkeys(zone.benchmark for zone in known_zones()))


def chip_boxes(lon: Floats, lat: Floats, chip_km: float) -> tuple[Floats, Floats, Floats, Floats]:
    """west, south, east, north (each (N,), degrees) of boxes that contain the chips of `chip_km` on a side around the points.

    A box is at most a tenth wider than the chip. Longitudes go beyond ±180 where it crosses the antimeridian.
    """
    half = SLACK * chip_km / 2
    high = half / KM_PER_DEGREE_LAT
    # a parallel is shortest on the side of the pole; a box that reaches the pole goes all around
    shortest = np.cos(np.radians(np.minimum(np.abs(lat) + high, 90)))
    with np.errstate(divide="ignore"):
        wide = np.minimum(half / (KM_PER_DEGREE_LON * shortest), 180)
    return lon - wide, np.maximum(lat - high, -90), lon + wide, np.minimum(lat + high, 90)


class Zones:
    """The polygons that no chip may intersect, and the test for it."""

    def __init__(self, shapes: Shapes, chip_km: float) -> None:
        """Keep single polygons (see `polygons.clean`) and the side of a chip in km."""
        self.shapes, self.chip_km = shapes, chip_km
        self._tree = shapely.STRtree(shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def touched(self, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
        """Whether the chip around each point (N,) in degrees intersects a zone, or may intersect it (see `chip_boxes`)."""
        hit = np.zeros(len(lon), bool)
        if len(self.shapes) == 0:
            return hit
        west, south, east, north = chip_boxes(lon, lat, self.chip_km)
        hit[self._tree.query(shapely.box(west, south, east, north), predicate="intersects")[0]] = True
        for rows, turn in ((np.flatnonzero(west < -180), 360), (np.flatnonzero(east > 180), -360)):
            around = shapely.box(west[rows] + turn, south[rows], east[rows] + turn, north[rows])
            hit[rows[self._tree.query(around, predicate="intersects")[0]]] = True
        return hit

    def within(self, region: tuple[float, float, float, float] | None) -> Zones:
        """The zones that a chip of a place in `region` (west, south, east, north) can intersect."""
        if region is None or len(self.shapes) == 0:
            return self
        west, south, east, north = region
        corners = chip_boxes(np.array([west, east]), np.array([south, north]), self.chip_km)
        margin = float(np.max(corners[2] - corners[0])) / 2
        low, high = float(corners[1].min()), float(corners[3].max())
        ends = [(west - margin, east + margin)] if west <= east else [(west - margin, 180.0), (-180.0, east + margin)]
        boxes = [shapely.box(a + turn, low, b + turn, high) for a, b in ends for turn in (-360, 0, 360)]
        reached = np.unique(self._tree.query(boxes, predicate="intersects")[1])
        return Zones(self.shapes[reached], self.chip_km)

    def fingerprint(self) -> str:
        """sha256 of the polygons and the chip's side: the part of the zones that decides the places."""
        digest = hashlib.sha256(f"{self.chip_km:g}".encode())
        for shape in sorted(shapely.to_wkb(shapely.normalize(self.shapes)).tolist()):
            digest.update(shape)
        return digest.hexdigest()


def zones_of(settings: Settings) -> Zones:
    """The zones that `sampling.exclude_benchmarks` and `sampling.exclude` activate.

    Raises:
        UserError: a benchmark that has no known footprints, or a file or folder that cannot be used; the message says what to do.
    """
    sampling, imagery = settings.sampling, settings.imagery
    names = known_benchmarks() if sampling.exclude_benchmarks is None else sampling.exclude_benchmarks
    for name in names:
        if name not in known_benchmarks():
            raise UserError(
                f"sampling.exclude_benchmarks={name}: the package knows the footprints of {', '.join(known_benchmarks())}; "
                "give those of another data set as files under sampling.exclude (see `caco footprints`)"
            )
    boxes = [shapely.box(*zone.box) for zone in known_zones() if zone.benchmark in names]
    shapes = [clean(np.array(boxes, object))]
    for path in (settings.home / path.expanduser() for path in sampling.exclude):
        if path.is_dir():
            try:
                found = read_footprints(path)
            except UserError as error:
                raise UserError(f"sampling.exclude={error}") from error
            for name, reason in found.refused.items():
                logger.warning(f"sampling.exclude: {path / name} excludes nothing: {reason}")
            shapes.append(clean(found.shapes))
        else:
            shapes.append(read_polygons(path, "sampling.exclude"))
    # half a pixel on either side: the grid of a chip is moved onto multiples of the resolution
    chip_km = (imagery.chip_size + 1) * imagery.resolution / 1000
    return Zones(np.concatenate(shapes), chip_km)
