"""Spectra of every palette entry on a date: two materials per entry, shapes (KINDS * SLOTS, 12)."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from caco_assets.synthetic.earth import phenology
from caco_assets.synthetic.earth.covers import (
    ASPHALT,
    BEACH,
    BURNT,
    GRAVEL,
    GREEN,
    HEDGE,
    MOTORWAY,
    PAVED,
    QUARRY,
    SLOTS,
    YARD,
)
from caco_assets.synthetic.earth.noise import Floats, uniform
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
from caco_assets.synthetic.earth.spectra import MATERIALS, ROOFS, SOILS, SPECTRA, spectrum

Pair = tuple[Floats, Floats]


def _blend(a: Floats, b: Floats, share: Floats) -> Floats:
    """`share` of `a` and the rest of `b`; spectra (12,) or (SLOTS, 12), share (SLOTS,)."""
    share = np.clip(share, 0.0, 1.0)[:, None]
    return share * a + (1.0 - share) * b


class Palette:
    """The materials of a region; `on(date)` gives the tables. Holds only what does not depend on the date."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self._soil = self._soils()
        self._roof = self._roofs()

    def _draw(self, *names: str | int) -> Floats:
        """A number in [0, 1) per slot."""
        return uniform(np.arange(SLOTS), np.zeros(1, np.int64), self.region.sub("palette", *names))

    def _choose(self, weights: tuple[float, ...], names: tuple[str, ...], draw: Floats) -> Floats:
        """Material of each slot, drawn with these weights, shape (SLOTS, 12)."""
        edges = np.cumsum(np.array(weights) / sum(weights))
        rows = np.array([MATERIALS.index(name) for name in names])
        return SPECTRA[rows[np.minimum(np.searchsorted(edges, draw, side="right"), len(names) - 1)]]

    def _soils(self) -> Floats:
        """The region's soil with a tint and wetness of each slot."""
        weights = np.array(self.region.soil) + 0.02
        base = (weights[:, None] * np.stack([spectrum(name) for name in SOILS])).sum(0) / weights.sum()
        other = self._choose(tuple(weights), SOILS, self._draw("soil"))
        return _blend(other, base, 0.65 * self._draw("soil share")) * (0.75 + 0.75 * self._draw("soil wet"))[:, None]

    def _roofs(self) -> Floats:
        roof = self._choose(self.region.roofs, ROOFS, self._draw("roof"))
        return roof * (0.7 + 0.6 * self._draw("roof age"))[:, None]

    def on(self, when: datetime, since_event_days: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """First and second material of every entry on a date, float32 (KINDS * SLOTS, 12).

        Args:
            when: the date.
            since_event_days: age of the ground laid bare: it grows over within a few years.
        """
        makers = {
            ANNUAL: self._annual,
            FOREST: self._forest,
            HERB: self._herb,
            HIGHWAY: self._highway,
            INDUSTRIAL: self._industrial,
            PASTURE: self._pasture,
            PERMANENT: self._permanent,
            RESIDENTIAL: self._residential,
            RIVER: self._river,
            SEALAKE: self._sealake,
            PAVED: self._paved,
        }
        pairs = [makers[kind](when) for kind in range(PAVED + 1)] + [self._bare(when, since_event_days)]
        first, second = (np.concatenate(side).astype(np.float32) for side in zip(*pairs, strict=True))
        return first, second

    def _grass(self, when: datetime, name: str, lift: float = 0.0) -> tuple[Floats, Floats]:
        """Greenness of grass per slot, and its spectrum."""
        day = phenology.day_of_season(self.region, when) + 30.0 * (self._draw(name, "mown") - 0.5)
        dry = 1.0 - 0.45 * self.region.dryness
        green = phenology.grass(self.region, day) * dry + lift + 0.25 * (self._draw(name, "lush") - 0.5)
        return green, _blend(spectrum("grass"), spectrum("dry grass"), green)

    def _annual(self, when: datetime) -> Pair:
        green, kind = phenology.field_cover(self.region, when, SLOTS)
        day = phenology.day_of_season(self.region, when)
        vigour = (0.75 + 0.3 * self._draw("vigour"))[:, None]
        tint = self._draw("crop tint")
        plant = _blend(spectrum("crop"), spectrum("grass"), tint) * vigour
        bloom = (kind == phenology.CROPS.index("rape")) & (110 < day < 145)
        plant = np.where(bloom[:, None], spectrum("rape"), plant)
        # after harvest, stubble and straw until the plough
        straw = np.clip(0.9 - 2.5 * green, 0.0, 1.0) * (self._draw("straw") < 0.45) * (180 < day < 290)
        ground = _blend(spectrum("dry grass") * 1.1, self._soil, 0.75 * straw)
        return _blend(plant, ground * 0.94, green + 0.10), _blend(plant, ground * 1.07, green - 0.10)

    def _forest(self, when: datetime) -> Pair:
        day = phenology.day_of_season(self.region, when) + 14.0 * (self._draw("flush") - 0.5)
        leaf = phenology.leaves(self.region, day)
        needle = np.clip(self.region.conifers + 1.1 * (self._draw("conifer") - 0.5), 0.0, 1.0)
        broad = _blend(spectrum("deciduous"), spectrum("bare trees"), leaf)
        crown = _blend(spectrum("conifer"), broad, needle) * (0.85 + 0.3 * self._draw("stand age"))[:, None]
        floor = _blend(spectrum("shrub"), spectrum("shade"), 0.6 * self._draw("open") ** 2)
        return crown, _blend(floor, crown, 0.25 + 0.3 * self._draw("gaps"))

    def _herb(self, when: datetime) -> Pair:
        green, grass = self._grass(when, "herb", lift=-0.22)
        shrub = _blend(spectrum("shrub"), spectrum("deciduous"), 0.45 + 0.5 * self._draw("shrub"))
        ground = np.where((self._draw("rocky") < 0.3 * (0.3 + self.region.rugged))[:, None], spectrum("rock"), self._soil)
        bareness = np.clip(0.75 * self._draw("bareness") ** 1.3 * (1.15 - green), 0.0, 1.0)
        open_ground = _blend(ground, grass, bareness) * (0.8 + 0.35 * self._draw("herb light"))[:, None]
        return _blend(shrub, open_ground, 0.45 + 0.4 * self._draw("woody")), open_ground

    def _pasture(self, when: datetime) -> Pair:
        green, grass = self._grass(when, "pasture", lift=0.36)
        lush = grass * (0.66 + 0.3 * self._draw("meadow light"))[:, None]
        worn = _blend(grass, spectrum("dry grass"), green * 0.75)
        return lush, _blend(worn, self._soil, 0.85 + 0.15 * self._draw("worn")) * (0.72 + 0.25 * self._draw("meadow light"))[
            :, None
        ]

    def _permanent(self, when: datetime) -> Pair:
        day = phenology.day_of_season(self.region, when)
        leaf = np.where(self._draw("evergreen") < 0.4 * (1.0 - self.region.climate[4]), 0.85, phenology.leaves(self.region, day))
        tree = _blend(_blend(spectrum("deciduous"), spectrum("shrub"), self._draw("orchard")), spectrum("bare trees"), leaf)
        _, grass = self._grass(when, "orchard floor", lift=-0.1)
        floor = _blend(grass, self._soil, np.clip(1.5 * self._draw("orchard grass") - 0.6, 0.0, 0.9))
        cover = 0.15 + 0.6 * self._draw("orchard cover")
        return _blend(tree, floor, cover + 0.28), _blend(tree, floor, cover - 0.22)

    def _residential(self, when: datetime) -> Pair:
        house = np.arange(SLOTS) % 32
        hood = np.arange(SLOTS) // 32
        _, grass = self._grass(when, "garden")
        leaf = phenology.leaves(self.region, phenology.day_of_season(self.region, when))
        tree = _blend(spectrum("deciduous"), spectrum("bare trees"), np.full(SLOTS, float(leaf)))
        green = _blend(tree, grass, 0.35 + 0.4 * self._draw("garden trees")[hood])
        paving = _blend(spectrum("asphalt"), self._soil, 0.3 + 0.6 * self._draw("paving")[hood])
        garden = _blend(green, paving, 0.25 + 0.65 * self._draw("garden")[hood])
        street = _blend(spectrum("asphalt"), self._soil[0], 0.5 + 0.5 * self._draw("street")[hood])
        first = np.where((house >= 30)[:, None], tree, np.where((house >= 28)[:, None], street, self._roof * 0.74))
        return first, garden

    def _industrial(self, when: datetime) -> Pair:
        slot = np.arange(SLOTS)
        # halls: metal, bitumen, white and coloured sheets, whatever the region's houses wear
        hall = self._choose(
            (1.1, 1.0, 0.9, 0.5, 0.7, 0.35),
            ("metal", "white roof", "slate", "blue roof", "concrete", "brown roof"),
            self._draw("hall"),
        )
        hall = _blend(hall, self._roof, 0.65 + 0.35 * self._draw("hall share")) * (0.6 + 0.6 * self._draw("hall age"))[:, None]
        yard = (
            _blend(spectrum("asphalt"), spectrum("concrete"), 0.15 + 0.8 * self._draw("yard"))
            * (0.8 + 0.3 * self._draw("yard age"))[:, None]
        )
        yard = _blend(yard, self._soil, 0.6 + 0.4 * self._draw("yard dirt"))
        _, grass = self._grass(when, "yard grass", lift=-0.1)
        first = np.where((slot >= GREEN)[:, None], grass, np.where((slot >= YARD)[:, None], yard, hall))
        second = np.where(
            (slot >= YARD)[:, None], _blend(spectrum("slate"), self._soil, self._draw("clutter")), spectrum("asphalt") * 0.8
        )
        return first, second

    def _highway(self, when: datetime) -> Pair:
        lane = _blend(spectrum("asphalt"), spectrum("concrete"), 0.35 + 0.65 * self._draw("lane"))
        _, grass = self._grass(when, "verge")
        return lane, _blend(grass, self._soil, 0.35 + 0.6 * self._draw("verge soil"))

    def _water(self, when: datetime, name: str, muddier: float) -> Pair:
        """Colour of the water on a date: the region's, moved by what rivers carry and algae grow that season."""
        day = phenology.day_of_season(self.region, when)
        season = uniform(np.arange(SLOTS), np.full(1, int(day // 20) + 19 * when.year), self.region.sub("water", name))
        clear, turbid, green = (np.full(SLOTS, w) + 0.02 for w in self.region.water)
        clear = clear * (0.4 + self._draw(name, "clear"))
        turbid = turbid * (0.3 + season) + muddier
        green = green * (0.3 + self._draw(name, "green"))
        total = (clear + turbid + green)[:, None]
        mixed = (
            clear[:, None] * spectrum("water clear")
            + turbid[:, None] * spectrum("water turbid")
            + green[:, None] * spectrum("water green")
        ) / total
        bottom = _blend(mixed, spectrum("soil pale") * 0.45, np.full(SLOTS, 0.9))
        return mixed, _blend(bottom, mixed, np.full(SLOTS, 0.6))

    def _river(self, when: datetime) -> Pair:
        return self._water(when, "river", 0.12)

    def _sealake(self, when: datetime) -> Pair:
        return self._water(when, "sea", 0.0)

    def _paved(self, when: datetime) -> Pair:
        slot = np.arange(SLOTS)
        _, grass = self._grass(when, "verge")
        leaf = phenology.leaves(self.region, phenology.day_of_season(self.region, when))
        tree = _blend(spectrum("deciduous"), spectrum("bare trees"), np.full(SLOTS, float(leaf)))
        first = np.zeros((SLOTS, 12))
        for start, stop, material in (
            (ASPHALT, GRAVEL, _blend(spectrum("asphalt"), spectrum("concrete"), 0.4 + 0.6 * self._draw("asphalt"))),
            (GRAVEL, MOTORWAY, self._soil * 1.12),
            (MOTORWAY, HEDGE, np.broadcast_to(spectrum("asphalt"), (SLOTS, 12))),
            (HEDGE, BEACH, _blend(tree, spectrum("shade"), 0.6 + 0.3 * self._draw("hedge"))),
            (BEACH, SLOTS, _blend(spectrum("soil pale"), self._soil, 0.7 * self._draw("beach"))),
        ):
            part = (slot >= start) & (slot < stop)
            first[part] = material[part]
        return first, _blend(grass, self._soil, 0.4 + 0.5 * self._draw("verge soil"))

    def _bare(self, when: datetime, age_days: float) -> Pair:
        slot = np.arange(SLOTS)
        _, grass = self._grass(when, "regrowth", lift=-0.15)
        regrown = np.full(SLOTS, min(0.7, age_days / 2500.0)) * (0.6 + 0.8 * self._draw("regrowth"))
        soil = self._soil
        burnt = _blend(grass, spectrum("burnt"), regrown * 0.8)
        felled = _blend(_blend(grass, soil, np.full(SLOTS, 0.3)), soil, np.full(SLOTS, 0.5))
        felled = _blend(grass, felled, regrown)
        rock = _blend(spectrum("rock"), soil, 0.4 + 0.6 * self._draw("quarry")) * (0.9 + 0.5 * self._draw("quarry face"))[:, None]
        first = np.where((slot >= QUARRY)[:, None], rock, np.where((slot >= BURNT)[:, None], burnt, felled))
        second = np.where(
            (slot >= QUARRY)[:, None], soil * 1.05, np.where((slot >= BURNT)[:, None], spectrum("burnt") * 0.85, soil * 0.85)
        )
        return first, second
