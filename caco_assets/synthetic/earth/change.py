"""True long-term change: events that turn the land cover of a patch into another class for good."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from caco_assets.synthetic.earth import noise, terrain
from caco_assets.synthetic.earth.covers import BURNT, CLEARED, QUARRY
from caco_assets.synthetic.earth.noise import Frame
from caco_assets.synthetic.earth.region import (
    ANNUAL,
    FOREST,
    HERB,
    INDUSTRIAL,
    PASTURE,
    PERMANENT,
    RESIDENTIAL,
    RIVER,
    SEALAKE,
    Region,
)

_COUNTRY = (ANNUAL, FOREST, HERB, PASTURE, PERMANENT)


@dataclass(frozen=True)
class Kind:
    """What an event does."""

    name: str
    affects: tuple[int, ...]
    """Classes it can happen to."""
    becomes: int
    bare: int | None
    """Why the ground is bare afterwards (`texture`), or None where the new class shows its usual face."""
    weight: float


KINDS = (
    Kind("urban_growth", (ANNUAL, HERB, PASTURE, PERMANENT, FOREST), RESIDENTIAL, None, 1.0),
    Kind("industrial_growth", (ANNUAL, HERB, PASTURE, PERMANENT, FOREST), INDUSTRIAL, None, 0.8),
    Kind("clear_cut", (FOREST,), HERB, CLEARED, 1.4),
    Kind("burn", (FOREST, PERMANENT), HERB, BURNT, 0.8),
    Kind("quarry", _COUNTRY, INDUSTRIAL, QUARRY, 0.4),
    Kind("reservoir", (*_COUNTRY, RIVER), SEALAKE, None, 0.5),
    Kind("redevelopment", (RESIDENTIAL,), INDUSTRIAL, None, 0.25),
    Kind("reclamation", (SEALAKE,), INDUSTRIAL, None, 0.3),
)
"""Urban growth is two kinds; the last two are for places that are all town or all water."""
_BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Event:
    """One event: where (metres east and south of the world origin), how large, and when."""

    kind: str
    x: float
    y: float
    radius: float
    when: datetime
    key: int

    @property
    def rule(self) -> Kind:
        """What it does."""
        return _BY_NAME[self.kind]

    def reaches(self, frame: Frame) -> bool:
        """Whether any pixel of the frame can lie inside."""
        far = 1.7 * self.radius
        return bool(frame.x[0] - far < self.x < frame.x[-1] + far and frame.y[0] - far < self.y < frame.y[-1] + far)

    def mask(self, frame: Frame, cover: np.ndarray) -> np.ndarray:
        """Pixels that it changes, bool (H, W): a lobed patch of the classes it affects (`cover`: the land before)."""
        dx, dy = frame.x[None, :] - self.x, frame.y[:, None] - self.y
        lobes = noise.fbm(frame, 1.1 * self.radius, 3, self.key)
        inside = np.sqrt(dx * dx + dy * dy) < self.radius * (1.0 + 0.22 * np.clip(lobes, -2.5, 2.5))
        return inside & np.isin(cover, self.rule.affects)


def marked(seed: int, index: int, share: float) -> bool:
    """Whether the place with this index changes.

    The marks are evenly spread: of any first n places n * share change (within one), and growing the set keeps the marks it has.
    """
    start = noise.key_of("changed", seed) / 2**32
    return int((index + 1) * share + start) > int(index * share + start)


def event_for(
    region: Region, place: tuple[float, float], extent: float, index: int, between: tuple[datetime, datetime]
) -> Event | None:
    """The event of a marked place.

    Args:
        region: its city's surroundings.
        place: metres east and south of the world origin.
        extent: side of the place's chip in metres; the event covers about 3 to 20 % of it.
        index: the place's number, which seeds the draw.
        between: it happens in this interval.

    Returns:
        None where no event can touch a fair part (an unlucky mixture of roads and water).
    """
    draw = noise.generator("event", region.key, index)
    stride = max(1, int(extent / noise.PIXEL) // 32)
    col, row = (round(metres / noise.PIXEL) for metres in place)
    reach = int(extent / noise.PIXEL / 2)
    steps = np.arange(-reach, reach, stride)
    frame = Frame(col + steps, row + steps)
    cover = terrain.survey(region, frame).cover
    radius = extent * (0.12 + 0.12 * float(draw.random()))
    start, stop = between
    when = start + timedelta(days=float(int((stop - start).days * draw.random())))
    shares = np.array([kind.weight * float(np.isin(cover, kind.affects).mean()) ** 1.5 for kind in KINDS])
    # four kinds in the order of a weighted draw, each tried around the place; the first that takes hold stays
    order = np.argsort(-(shares / shares.sum() if shares.sum() > 0 else shares) * (0.05 + draw.random(len(KINDS))))[:4]
    for number in order:
        for _ in range(4):
            angle_x, angle_y = 2.0 * float(draw.random()) - 1.0, 2.0 * float(draw.random()) - 1.0
            x, y = place[0] + 0.22 * extent * angle_x, place[1] + 0.22 * extent * angle_y
            event = Event(KINDS[number].name, round(x, 1), round(y, 1), round(radius, 1), when, int(draw.integers(2**32)))
            if event.mask(frame, cover).mean() > 0.02:
                return event
    return None


def after(cover: np.ndarray, frame: Frame, events: tuple[Event, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Land cover after the events, and the number of the event (from 1, 0: none) that made each pixel, both (H, W)."""
    changed, owner = cover.copy(), np.zeros(cover.shape, np.int16)
    for number, event in enumerate(events, 1):
        if event.reaches(frame):
            where = event.mask(frame, cover) & (owner == 0)
            changed[where] = event.rule.becomes
            owner[where] = number
    return changed, owner
