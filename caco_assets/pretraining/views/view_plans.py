"""View plans: which dates of a place become which views, one plan for each family of objectives.

Source: the published loaders (moco, seco, teco, caco). A place has two periods of several dates; a drawn date is cropped
(random resized crop), and augmented views also pass colour jitter, grayscale, blur and flip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class View:
    """One view: which of the drawn dates it shows, and whether it is augmented beyond the random resized crop."""

    date: int
    augment: bool


@dataclass(frozen=True)
class ViewPlan:
    """How the views of one sample are made; `views[0]` is the query, the others are keys."""

    draw: int
    """Dates drawn per sample."""
    replace: bool
    """Whether one date may be drawn twice."""
    scope: Literal["period", "place"]
    """Dates come from the sample's own period, or from all dates of the place."""
    paired: bool
    """Whether a batch holds both periods of each place as neighbours: rows 2i (early) and 2i+1 (late)."""
    crop_first: bool
    """`moco` crops before the colour operations; the others augment the full image, then crop."""
    views: tuple[View, ...]
    blur: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest deviation of the Gaussian blur, in pixels of the blurred image (the crop in crop-first plans)."""
    aligned: bool = False
    """Whether the queries of a pair show the same season (see `aligned_seasons`)."""


_THREE_SPACES = (View(0, augment=False), View(1, augment=True), View(2, augment=False), View(0, augment=True))
_TWO_VIEWS = (View(0, augment=True), View(0, augment=True))

PLANS: dict[str, ViewPlan] = {
    "moco": ViewPlan(draw=1, replace=False, scope="place", paired=False, crop_first=True, views=_TWO_VIEWS),
    "seco": ViewPlan(draw=3, replace=True, scope="place", paired=False, crop_first=False, views=_THREE_SPACES),
    "teco": ViewPlan(draw=3, replace=True, scope="period", paired=True, crop_first=False, views=_THREE_SPACES),
    "caco": ViewPlan(draw=3, replace=False, scope="period", paired=True, crop_first=False, views=_THREE_SPACES),
}
