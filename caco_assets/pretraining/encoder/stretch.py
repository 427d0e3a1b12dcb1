"""Named stretches from surface reflectance to the uint8 of the pack, each an exact table over all archive values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from caco_assets.core.errors import UserError

REFLECTANCE_SCALE = 10_000
"""Archive values are uint16 reflectance × 10 000."""

# Limits on the published scale uint8 = reflectance × 255. B02, B03 and B04 are the quantiles that SeCo and CACo publish. For the
# other bands none are published: ours start below the 1st percentile and end well above the 99.9th of real Sentinel-2 chips of
# Spain and of EuroSAT's ten classes (up to 114 in B08, 117 in B11), with room for brighter arid ground.
_SECO_LIMITS = {
    "B01": (3, 88),
    "B02": (3, 88),
    "B03": (2, 103),
    "B04": (0, 129),
    "B05": (0, 140),
    "B06": (0, 150),
    "B07": (0, 155),
    "B08": (0, 160),
    "B8A": (0, 160),
    "B09": (0, 160),
    "B11": (0, 150),
    "B12": (0, 140),
}
# EuroSAT's authors map reflectance 0 … 0.275 to 0 … 255 in their RGB pictures.
_EUROSAT_LIMITS: dict[str, tuple[int, int]] = dict.fromkeys(_SECO_LIMITS, (0, 2750))
_REFLECTANCE_LIMITS: dict[str, tuple[int, int]] = dict.fromkeys(_SECO_LIMITS, (0, REFLECTANCE_SCALE))


@dataclass(frozen=True)
class _Kind:
    """Unit of a named stretch's limits, and its rounding."""

    limits: dict[str, tuple[int, int]]
    unit: int
    """Limits are reflectance × unit."""
    others: tuple[int, int] | None = None
    """Limits of bands without their own; None: such bands cannot be stretched this way."""
    published: bool = False
    """Convert to uint8 = reflectance × 255 first and truncate after stretching, as the published pipeline does."""


KINDS = {
    "seco": _Kind(_SECO_LIMITS, 255, published=True),
    "seco_fine": _Kind(_SECO_LIMITS, 255),
    "eurosat": _Kind(_EUROSAT_LIMITS, REFLECTANCE_SCALE),
    "reflectance": _Kind(_REFLECTANCE_LIMITS, REFLECTANCE_SCALE, others=(0, REFLECTANCE_SCALE)),
}
"""`seco`: the published pipeline, exactly: round to the nearest uint8 = reflectance × 255 (images stored that way are
unchanged), then apply the truncating stretch; blue keeps 86 distinct levels.
`seco_fine`: the same limits in one step to the nearest level, so all 256 levels are used.
`eurosat`: reflectance 0 … 0.275, nearest: the scale of EuroSAT's RGB pictures.
`reflectance`: reflectance 0 … 1, nearest, for any band of any sensor."""


@dataclass(frozen=True)
class Stretch:
    """One stretch with the limits of its bands."""

    name: str
    """A key of `KINDS`."""
    low: tuple[int, ...]
    """Per band: the value that becomes 0 (reflectance × the kind's unit)."""
    high: tuple[int, ...]
    """Per band: the value that becomes 255."""

    @classmethod
    def named(cls, name: str, bands: tuple[str, ...]) -> Stretch:
        """The stretch `name` with its own limits for `bands`.

        Raises:
            UserError: unknown stretch, or a band without limits.
        """
        if name not in KINDS:
            raise UserError(f"stretch={name}: there is no such stretch; choose one of {', '.join(KINDS)}")
        kind = KINDS[name]
        found = [kind.limits.get(band, kind.others) for band in bands]
        if unknown := [band for band, limits in zip(bands, found, strict=True) if limits is None]:
            raise UserError(
                f"bands: stretch {name} has no limits for {', '.join(unknown)}; choose among {', '.join(kind.limits)}, "
                "or the stretch reflectance, which takes any band"
            )
        low, high = zip(*(limits for limits in found if limits), strict=True)
        return cls(name, low, high)

    def tables(self) -> np.ndarray:
        """uint8 (bands, 65536): archive value → pack value."""
        return np.stack([_table(self.name, low, high) for low, high in zip(self.low, self.high, strict=True)])

    def sha256(self) -> str:
        """Hash of the tables: two packs with the same hash hold the same pixels for the same chips."""
        return hashlib.sha256(self.tables().tobytes()).hexdigest()


def table(stretch: str, band: str) -> np.ndarray:
    """uint8 (65536,): archive value (reflectance × 10 000) of `band` → pack value."""
    return Stretch.named(stretch, (band,)).tables()[0]


def published_table(low: int, high: int) -> np.ndarray:
    """uint8 (256,): the published quantile stretch of uint8 = reflectance × 255, truncating.

    Integer arithmetic: it reproduces the floating-point original in all 256 entries of its three bands.
    """
    value = np.arange(256, dtype=np.int64)
    return np.clip((value - low) * 255 // (high - low), 0, 255).astype(np.uint8)


@cache
def _table(name: str, low: int, high: int) -> np.ndarray:
    """Exact integer arithmetic over every archive value; read-only because it is shared."""
    kind = KINDS[name]
    archive = np.arange(65_536, dtype=np.int64)
    if kind.published:
        stored = np.minimum((2 * 255 * archive + REFLECTANCE_SCALE) // (2 * REFLECTANCE_SCALE), 255)
        levels = published_table(low, high)[stored]
    else:
        span = (high - low) * REFLECTANCE_SCALE
        # floor(x + 1/2) of x = 255 · (archive · unit / 10 000 − low) / (high − low)
        nearest = (2 * 255 * (archive * kind.unit - low * REFLECTANCE_SCALE) + span) // (2 * span)
        levels = np.clip(nearest, 0, 255).astype(np.uint8)
    levels.setflags(write=False)
    return levels
