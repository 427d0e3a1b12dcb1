"""Settings of the room `validation`: which data stops the chain."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from caco_assets.settings.frozen import Frozen


class Drift(Frozen):
    """How far a vintage may be from the last one that was accepted."""

    severity: Literal["blocking", "warning"] = "blocking"
    """`blocking`: the chain stops before training until a person accepts it; `warning`: the promotion policy has the last word."""
    places: int = Field(default=64, ge=1)
    """Places whose chips are measured: a seeded choice, the same for every vintage."""
    mean: float = Field(default=0.2, gt=0)
    """Largest change of a band's mean reflectance, as a share of the older."""
    spread: float = Field(default=0.35, gt=0)
    """Largest change of a band's standard deviation, as a share of the older."""
    strange: float = Field(default=0.05, ge=0, le=1)
    """Largest share of chips whose mean lies far outside of what the older vintage has seen in that band."""
    cover: float = Field(default=0.15, gt=0, le=1)
    """Largest share of the ground that may have another cover: half the sum of the differences of the shares."""
    clear_sky: float = Field(default=0.2, gt=0, le=1)
    """Largest change of the share of tried scenes that were clear."""


class Validation(Frozen):
    """When data is bad enough to stop."""

    max_quarantined: float = Field(default=0.5, ge=0, le=1)
    """Largest share of wanted chips that may be in quarantine."""
    drift: Drift = Drift()
