"""What the ground looks like: for each pixel a palette entry, how much of the entry's two materials, and its brightness.

A palette entry is (kind, slot): the kinds are the ten classes plus paved and bare ground, and each has 256 slots (a field, a
stand, a roof …) whose spectra on a date come from `palette.py`. So all that depends on the date is a small table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from caco_assets.synthetic.earth import noise
from caco_assets.synthetic.earth.covers import (
    ASPHALT,
    BARE,
    BEACH,
    GRAVEL,
    HEDGE,
    MEADOW_BEND,
    MEADOW_M,
    PAINT,
    PAVED,
    SLOTS,
    Painted,
    Spots,
    cleared,
)
from caco_assets.synthetic.earth.noise import Cells, Frame, Singles
from caco_assets.synthetic.earth.region import (
    ANNUAL,
    HIGHWAY,
    INDUSTRIAL,
    PASTURE,
    PERMANENT,
    RESIDENTIAL,
    RIVER,
    SEALAKE,
    Region,
)
from caco_assets.synthetic.earth.terrain import Land


@dataclass(frozen=True)
class Ground:
    """A painted window, all shapes (H, W)."""

    entry: np.ndarray
    """int16 palette entry, kind * 256 + slot."""
    mix: Singles
    """Share of the entry's first material, 0 to 1."""
    gain: Singles
    """Brightness, about 1."""


def _spots(frame: Frame, land: Land, layers: dict[str, Singles], where: np.ndarray) -> Spots:
    rows, cols = np.nonzero(where)
    far = {name: getattr(land, name)[where] for name in ("depth", "river", "motorway", "ramp", "road", "centre")}
    zone, district = (
        Cells(cell.i[where], cell.j[where], cell.nearest[where], cell.second[where]) for cell in (land.zone, land.district)
    )
    picked = {name: layer[where] for name, layer in layers.items()}
    return Spots(frame.x[cols], frame.y[rows], zone=zone, district=district, land=far, **picked)


def layers(region: Region, frame: Frame) -> dict[str, Singles]:
    """The noises that all textures share, shapes (H, W)."""
    return {
        "white": frame.white(region.sub("white")),
        "grain": frame.white(region.sub("grain")),
        "mottle": noise.fbm(frame, 160.0, 3, region.sub("mottle")),
        "fine": noise.fbm(frame, 42.0, 2, region.sub("fine")),
    }


def paint(
    region: Region,
    frame: Frame,
    land: Land,
    cover: np.ndarray,
    shared: dict[str, Singles],
    bare: dict[int, np.ndarray] | None = None,
) -> Ground:
    """Paint a window.

    Args:
        region: the city's surroundings.
        frame: the window's pixels.
        land: its survey.
        cover: class codes to paint, uint8 (H, W) (the survey's, or those after a change).
        shared: `layers(region, frame)`.
        bare: masks (H, W) of ground laid bare, by reason; painted over their class.
    """
    entry = np.zeros(frame.shape, np.int16)
    mix, gain = np.zeros(frame.shape, np.float32), np.ones(frame.shape, np.float32)

    def put(where: np.ndarray, kind: int, painted: Painted) -> None:
        slot, share, bright = painted
        entry[where] = kind * SLOTS + slot
        mix[where] = np.clip(share, 0.0, 1.0)
        gain[where] = bright

    for code, painter in PAINT.items():
        where = cover == code
        if where.any():
            put(where, code, painter(region, _spots(frame, land, shared, where)))
    _details(region, frame, land, cover, shared, put)
    for reason, where in (bare or {}).items():
        if where.any():
            put(where, BARE, cleared(region, _spots(frame, land, shared, where), reason))
    return Ground(entry, mix, gain)


def _details(
    region: Region,
    frame: Frame,
    land: Land,
    cover: np.ndarray,
    shared: dict[str, Singles],
    put: Callable[[np.ndarray, int, Painted], None],
) -> None:
    """Things smaller than a class: lanes, hedges, trees, farms, beaches. They change the picture, not the class."""
    white, grain = shared["white"], shared["grain"]
    country = (cover != SEALAKE) & (cover != RIVER) & (cover != HIGHWAY) & (cover != INDUSTRIAL) & (cover != RESIDENTIAL)
    fields = (cover == ANNUAL) | (cover == PASTURE) | (cover == PERMANENT)

    def stroke(where: np.ndarray, slot: int, share: Singles) -> None:
        if where.any():
            put(where, PAVED, (slot + (land.zone.i[where] & 31), share[where], np.ones(1) + 0.1 * (grain[where] - 0.5)))

    # tracks: winding lines where a slow noise crosses zero, in some zones
    tracked = land.zone.pick(region.sub("tracked")) < 0.25
    path = noise.value(frame, 380.0, region.sub("tracks"))
    stroke(country & tracked & (np.abs(path) < 0.016), GRAVEL, 0.15 + 0.4 * white)
    # hedges and tree lines between meadows, and at the edges of some zones
    hedged = land.zone.pick(region.sub("hedged"))
    bend = MEADOW_BEND * shared["mottle"]
    x, y = np.meshgrid(frame.x, frame.y)
    meadow = noise.cells((x + bend).ravel(), (y + bend).ravel(), MEADOW_M, region.sub("meadows"))
    gap = (meadow.second - meadow.nearest).reshape(cover.shape)
    lines = (cover == PASTURE) & (gap < 13.0) & (hedged < 0.75) & (white < 0.85)
    lines |= fields & (land.zone.second - land.zone.nearest < 14.0) & (hedged < 0.5) & (white < 0.8)
    lines |= country & (land.river < 18.0) & (shared["mottle"] > -0.5) & (white < 0.9)
    lines |= fields & (white > 0.9965)
    stroke(lines, HEDGE, 0.3 + 0.7 * grain)
    # country roads and streets of their continuation through the town
    road = land.road < 5.0
    stroke(road & (cover != SEALAKE) & (cover != RIVER) & (cover != HIGHWAY), ASPHALT, 0.45 + 0.25 * white)
    beach = country & (((land.depth > -16.0) & (land.depth <= 0)) | (land.river < 9.0)) & (shared["mottle"] < -0.4)
    stroke(beach, BEACH, 0.5 + 0.5 * white)
    # scattered farms
    farm = fields & (noise.value(frame, 130.0, region.sub("farms")) > 0.93) & (white < 0.6)
    if farm.any():
        hood = region.sub("farm") & 7
        count = int(farm.sum())
        put(farm, RESIDENTIAL, (hood * 32 + (land.zone.i[farm] & 7), 0.3 + 0.6 * grain[farm], np.ones(count)))
