"""Settings of the room `validation`: limits above which data stops the chain."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from caco_assets.settings.frozen import Frozen


class Drift(Frozen):
    """Limits on the drift of a vintage from the last accepted one."""

    severity: Literal["blocking", "warning"] = "blocking"
    """`blocking`: the chain stops before training until a person accepts it; `warning`: the promotion policy decides."""
    places: int = Field(default=64, ge=1)
    """Number of places whose chips are measured: a seeded choice, the same for every vintage."""
    mean: float = Field(default=0.2, gt=0)
    """Largest change of a band's mean reflectance, relative to the older vintage."""
    spread: float = Field(default=0.35, gt=0)
    """Largest change of a band's standard deviation, relative to the older vintage."""
    strange: float = Field(default=0.05, ge=0, le=1)
    """Largest share of chips whose mean is far outside the older vintage's range in that band."""
    cover: float = Field(default=0.15, gt=0, le=1)
    """Largest share of the area with another land cover: half the sum of the absolute differences of the class shares."""
    clear_sky: float = Field(default=0.2, gt=0, le=1)
    """Largest change of the share of tried scenes that were clear."""


class Validation(Frozen):
    """Data quality limits that stop the chain."""

    max_quarantined: float = Field(default=0.5, ge=0, le=1)
    """Largest share of expected chips that may be in quarantine."""
    drift: Drift = Drift()
