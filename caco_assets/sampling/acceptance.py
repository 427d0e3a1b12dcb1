"""What a candidate must pass to become a place, in one object: region, land, exclusion zones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caco_assets.sampling.exclusion import Zones, zones_of
from caco_assets.sampling.land import Mask, is_land, land_of
from caco_assets.sampling.region import Region, region_of
from caco_assets.settings import Settings


@dataclass(frozen=True)
class Ground:
    """Where places may lie, whatever the strategy."""

    region: Region
    land: Mask
    zones: Zones

    @classmethod
    def everywhere(cls) -> Ground:
        """The whole Earth, the land of `global-land-mask`, nothing excluded."""
        return cls(Region(), is_land, Zones(np.array([], object), 0.0))


def ground_of(settings: Settings) -> Ground:
    """The ground of a profile; of the zones only those that a chip can meet.

    Raises:
        UserError: the region is empty or lies outside the Earth, a benchmark is not known, or a file cannot be used.
    """
    region = region_of(settings)
    return Ground(region, land_of(settings), zones_of(settings).within(region.bounds))
