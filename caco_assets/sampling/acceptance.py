"""The tests that a candidate must pass to become a place: region, land, exclusion zones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caco_assets.sampling.exclusion import Zones, zones_of
from caco_assets.sampling.land import Mask, is_land, land_of
from caco_assets.sampling.region import Region, region_of
from caco_assets.settings import Settings


@dataclass(frozen=True)
class Acceptance:
    """Where places are allowed, for every strategy."""

    region: Region
    land: Mask
    zones: Zones

    @classmethod
    def everywhere(cls) -> Acceptance:
        """The whole Earth, the land of `global-land-mask`, nothing excluded."""
        return cls(Region(), is_land, Zones(np.array([], object), 0.0))


def acceptance_of(settings: Settings) -> Acceptance:
    """The acceptance tests of a profile, with only the zones that a chip can intersect.

    Raises:
        UserError: the region is empty or lies outside the Earth, a benchmark is not known, or a file cannot be used.
    """
    region = region_of(settings)
    return Acceptance(region, land_of(settings), zones_of(settings).within(region.bounds))
