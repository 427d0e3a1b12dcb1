"""How each class of land cover looks from close: its fields, stands, roofs, waves (for palette entries see `texture.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from caco_assets.synthetic.earth import noise
from caco_assets.synthetic.earth.noise import Cells, Floats, Integers, Singles
from caco_assets.synthetic.earth.region import (
    ANNUAL,
    FOREST,
    HERB,
    HIGHWAY,
    INDUSTRIAL,
    PASTURE,
    PERMANENT,
    RESIDENTIAL,
    RIVER,
    SEALAKE,
    Region,
)

PAVED, BARE = 10, 11
MEADOW_M, MEADOW_BEND = 230.0, 14.0
"""Mean width of a meadow, and how far its hedges stray from straight, metres."""
SLOTS = 256

# Slots of PAVED: what a road is made of. The second material is the verge.
ASPHALT, GRAVEL, MOTORWAY, HEDGE, BEACH = 0, 32, 64, 96, 128
# Slots of BARE: why the ground is bare.
CLEARED, BURNT, QUARRY = 0, 64, 128
# Slots of INDUSTRIAL
YARD, GREEN = 192, 240


@dataclass(frozen=True)
class Spots:
    """Scattered pixels (n,) of one window with what their texture is made of."""

    x: Floats
    y: Floats
    white: Singles
    grain: Singles
    """A second, independent white noise."""
    mottle: Singles
    """Patches of about 150 m, unit standard deviation."""
    fine: Singles
    """Patches of about 40 m, unit standard deviation."""
    zone: Cells
    district: Cells
    land: dict[str, Singles]
    """`depth`, `river`, `motorway`, `ramp`, `road`, `centre` of these pixels."""


Painted = tuple[Integers, Floats, Floats]
"""slot, mix, gain"""


def _turned(spots: Spots, cells: Cells, key: int) -> tuple[Floats, Floats]:
    """Coordinates turned by an angle of the cell's own (one of 64)."""
    angle = np.arange(64) * np.pi / 64
    cosine, sine = np.round(np.cos(angle), 9), np.round(np.sin(angle), 9)
    k = cells.slot(key, 64)
    c, s = cosine[k], sine[k]
    return spots.x * c + spots.y * s, spots.y * c - spots.x * s


def _clip(values: Floats, low: float = 0.0, high: float = 1.0) -> Floats:
    return np.clip(values, low, high)


def _annual(region: Region, s: Spots) -> Painted:
    u, v = _turned(s, s.zone, region.sub("field angle"))
    scale = 0.6 + 1.3 * s.zone.pick(region.sub("field size"))
    bend = 10.0 * s.mottle
    field = noise.bricks(u / scale + bend, v / scale + bend, *region.parcel, region.sub("fields"))
    slot = field.slot(region.sub("field"), SLOTS)
    # tillage: long thin lines along the field, of a strength of its own
    lines = noise.value_at(u, v, (260.0, 13.0), region.sub("rows"))
    strength = field.pick(region.sub("row strength"))
    spread = 0.10 + 0.55 * field.pick(region.sub("field mottle")) ** 2
    mix = 0.5 + spread * (0.45 * s.mottle + 0.16 * s.fine) + 0.30 * strength * lines
    gain = 1.0 + 0.02 * s.mottle + 0.035 * strength * lines + 0.012 * (s.white - 0.5)
    return slot, mix, gain


def _forest(region: Region, s: Spots) -> Painted:
    stand = noise.cells(s.x + 25.0 * s.mottle, s.y + 25.0 * s.fine, 330.0, region.sub("stands"))
    rough = 0.25 + 0.75 * stand.pick(region.sub("rough"))
    mix = 0.55 + rough * (0.55 * (s.white - 0.5) + 0.12 * s.fine) + 0.10 * s.mottle
    gain = 1.0 + rough * (0.13 * (s.white - 0.5) + 0.025 * s.fine) + 0.03 * s.mottle
    return stand.slot(region.sub("stand"), SLOTS), mix, gain


def _herb(region: Region, s: Spots) -> Painted:
    zone = s.zone
    slot = zone.slot(region.sub("herb"), SLOTS)
    contrast = 0.25 + 1.1 * zone.pick(region.sub("herb contrast"))
    shrubs = zone.pick(region.sub("shrubs"))
    dots = (s.white < 0.22 * shrubs) * (0.5 + 0.5 * s.grain)
    gullies = np.abs(noise.value_at(s.x + 20.0 * s.fine, s.y + 20.0 * s.mottle, (210.0, 210.0), region.sub("gullies")))
    mix = 0.45 + contrast * (0.17 * s.mottle + 0.08 * s.fine) + 0.55 * dots
    mix = mix + np.where(zone.pick(region.sub("gullied")) < 0.5, 0.8 * _clip(0.22 - gullies, 0.0, 1.0) / 0.22 * contrast, 0.0)
    gain = 1.0 + contrast * (0.05 * s.fine + 0.10 * (s.grain - 0.5))
    return slot, mix, gain


def _pasture(region: Region, s: Spots) -> Painted:
    meadow = noise.cells(s.x + MEADOW_BEND * s.mottle, s.y + MEADOW_BEND * s.mottle, MEADOW_M, region.sub("meadows"))
    slot = meadow.slot(region.sub("meadow"), SLOTS)
    spread = 0.1 + 0.35 * meadow.pick(region.sub("meadow mottle"))
    mix = 0.55 + spread * (0.5 * s.mottle + 0.2 * s.fine) + 0.05 * (s.white - 0.5)
    return slot, mix, 1.0 + 0.025 * s.fine + 0.02 * (s.white - 0.5)


def _permanent(region: Region, s: Spots) -> Painted:
    u, v = _turned(s, s.zone, region.sub("orchard angle"))
    scale = 0.7 + 0.9 * s.zone.pick(region.sub("orchard size"))
    bend = 12.0 * s.mottle
    plot = noise.bricks(
        u / scale + bend, v / scale - bend, 0.5 * region.parcel[0], 25.0 + 0.45 * region.parcel[1], region.sub("plots"), 0.85
    )
    slot = plot.slot(region.sub("plot"), SLOTS)
    # rows of trees, 14 to 30 m apart, seen through a 10 m pixel: a triangle wave that beats with the grid
    pitch = 14.0 + 16.0 * plot.pick(region.sub("pitch"))
    across = np.where(plot.pick(region.sub("row side")) < 0.5, v, u)
    wave = np.abs(across / pitch - np.floor(across / pitch) - 0.5) * 4.0 - 1.0
    rows, dots = plot.pick(region.sub("row strength")), plot.pick(region.sub("dots"))
    mix = 0.5 + 0.28 * rows * wave + 0.6 * dots * (s.white - 0.5) + 0.07 * s.fine
    mix = np.where(plot.edge * scale < 5.0, 0.15, mix)
    return slot, mix, 1.0 + 0.03 * s.fine + 0.05 * (s.grain - 0.5)


def _residential(region: Region, s: Spots) -> Painted:
    u, v = _turned(s, s.district, region.sub("street angle"))
    dense = s.district.pick(region.sub("dense"))
    warp = 9.0 * s.mottle * s.district.pick(region.sub("crooked"))
    size = 0.75 + 0.8 * s.district.pick(region.sub("block size"))
    block = noise.bricks(u / size + warp, v / size + warp, 150.0, 62.0, region.sub("blocks"), 0.5)
    lot = noise.bricks(u / size + warp, v / size, 15.0 + 12.0 * 0.5, 17.0, region.sub("lots"), 0.8)
    hood = s.district.slot(region.sub("hood"), 8)
    which = lot.slot(region.sub("house"), 32)
    # slots: neighbourhood (8) x house (32); the last four houses of each are street and trees
    street = block.edge * size < 7.0 - 2.0 * dense
    which = np.where(street, 28 + (which & 1), np.where(which >= 28, which - 8, which))
    trees = (s.grain < 0.22 * (1.0 - dense)) & ~street
    which = np.where(trees, 30 + (which & 1), which)
    roof = 0.18 + 0.52 * dense + 0.8 * (s.white - 0.5) + 0.25 * (1.3 - s.land["centre"]).clip(-0.6, 0.5)
    mix = np.where(street, 0.55 + 0.4 * s.white, roof)
    return hood * 32 + which, mix, 1.0 + 0.30 * (s.grain - 0.5)


def _industrial(region: Region, s: Spots) -> Painted:
    u, v = _turned(s, s.district, region.sub("street angle"))
    size = 0.6 + 1.0 * s.district.pick(region.sub("hall size"))
    hall = noise.bricks(u / size, v / size, 150.0, 85.0, region.sub("halls"), 0.8)
    part = noise.bricks(u / size, v / size, 62.0, 48.0, region.sub("parts"), 0.8)
    # one part in three stands apart with its own roof; the rest share the hall's
    own = part.pick(region.sub("own")) < 0.45
    slot = np.where(own, part.slot(region.sub("part"), YARD), hall.slot(region.sub("hall"), YARD))
    inside = hall.edge * size
    gap = 10.0 + 14.0 * s.district.pick(region.sub("gap"))
    yard = (inside < gap) | (part.pick(region.sub("yard")) < 0.33) | (hall.pick(region.sub("empty")) < 0.10)
    yard_slot = YARD + (noise.hash32(hall.i, hall.j, region.sub("yard slot")) % np.uint32(GREEN - YARD)).astype(np.int64)
    slot = np.where(yard, yard_slot, slot)
    green = yard & (noise.value_at(s.x, s.y, (70.0, 70.0), region.sub("greens")) > 0.35)
    slot = np.where(green, GREEN + (hall.i & 15), slot)
    # cars, machines and tanks in the yards; the roofs' own structure is weak
    clutter = np.where(yard, 0.7 * (s.white - 0.5), 0.12 * (s.white - 0.5))
    mix = np.where(yard, 0.55, 0.92) + clutter
    shadow = (inside > gap) & (inside < gap + 7.0) & ~yard
    gain = np.where(shadow, 0.78, 1.0) + np.where(yard, 0.25, 0.06) * (s.grain - 0.5)
    return slot, mix, gain


def _river(region: Region, s: Spots) -> Painted:
    mix = 0.5 + 0.12 * s.mottle + 0.04 * s.fine + _clip(1.0 + s.land["river"] / 30.0) * -0.2
    return np.full(s.x.shape, region.sub("river") % SLOTS), mix, 1.0 + 0.015 * (s.white - 0.5)


def _sealake(region: Region, s: Spots) -> Painted:
    body = noise.cells(s.x, s.y, 5000.0, region.sub("bodies")).slot(region.sub("body"), SLOTS)
    drift = noise.value_at(s.x, s.y, (900.0, 700.0), region.sub("drift"))
    mix = _clip(s.land["depth"] / 260.0) * 0.7 + 0.15 + 0.15 * drift
    return body, mix, 1.0 + 0.02 * drift + 0.006 * s.fine


def _highway(region: Region, s: Spots) -> Painted:
    """Two carriageways with a green strip between, ramps, and the verge's grass around."""
    half = region.motorways[0].width / 2.0
    d = s.land["motorway"]
    lanes = _clip((half - np.abs(d - half * 0.62) * 1.9) / 9.0 + 0.35)
    ramps = _clip((10.0 - s.land["ramp"]) / 10.0)
    mix = np.maximum(lanes, ramps) * (0.85 + 0.2 * (s.white - 0.5))
    slot = np.full(s.x.shape, region.sub("motorway") % SLOTS)
    return slot, mix, 1.0 + 0.10 * (s.grain - 0.5)


def cleared(region: Region, s: Spots, reason: int) -> Painted:
    """Ground that an event laid bare (`CLEARED`, `BURNT`, `QUARRY`)."""
    patch = noise.cells(s.x, s.y, 90.0, region.sub("bare"))
    mix = 0.5 + 0.25 * s.mottle + 0.3 * (s.white - 0.5) + 0.12 * s.fine
    return reason + patch.slot(region.sub("bare slot"), 64), mix, 1.0 + 0.05 * s.fine + 0.1 * (s.grain - 0.5)


PAINT: dict[int, Callable[[Region, Spots], Painted]] = {
    ANNUAL: _annual,
    FOREST: _forest,
    HERB: _herb,
    HIGHWAY: _highway,
    INDUSTRIAL: _industrial,
    PASTURE: _pasture,
    PERMANENT: _permanent,
    RESIDENTIAL: _residential,
    RIVER: _river,
    SEALAKE: _sealake,
}
