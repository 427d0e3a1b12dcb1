"""The protocol for looking up scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from caco_assets.imagery.scenes.periods import Interval
from caco_assets.imagery.scenes.scene_table import scenes_in
from caco_assets.imagery.scenes.stac_item import Scene

Box = tuple[float, float, float, float]
"""west, south, east, north in degrees; west > east reaches across the antimeridian."""


class Catalog(Protocol):
    """Finds scenes."""

    refused: dict[str, str]
    """Items found so far that cannot be used: id → reason."""

    def search_many(self, boxes: Sequence[Box], spans: Sequence[Interval]) -> Iterator[pa.Table]:
        """For each box, in the order given, the scenes that may intersect it and whose time is in one of the half-open intervals.

        Tables have the columns of `scene_table.SCENES`, sorted by time and id, each item once. Neighboring boxes should
        follow each other.

        Raises:
            UserError: the catalog cannot be read, or does not respond.
        """
        ...

    def search(self, box: Box, interval: Interval) -> list[Scene]:
        """The scenes of one box and one interval, as objects."""
        return [scene for table in self.search_many([box], [interval]) for scene in scenes_in(table)]


def pieces(box: Box) -> list[Box]:
    """A box with west > east reaches across the antimeridian: its two parts."""
    west, south, east, north = box
    return [box] if west <= east else [(west, south, 180.0, north), (-180.0, south, east, north)]
