"""Ranks the scenes of one cell: one order for all its places; each place takes the scenes that contain it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from caco_assets.imagery.scenes.periods import Interval

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STATUS = ("planned", "widened", "missing")
PLANNED, WIDENED, MISSING = range(3)
SAME_PASS_US = 30 * 60 * 1_000_000
"""Scenes nearer in time than this (microseconds) come from one overpass: a tile and its neighbor, or two processings of a tile."""
SPARE_WIDENED = 3
"""Scenes from outside a season's window are listed up to `seasons` (the others may use up one each) and this many more."""
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Slots:
    """Candidates as parallel arrays, one entry per row of `scenes.parquet`; `scene` is -1 where none was found."""

    place: Ints
    period: Ints
    season: Ints
    rank: Ints
    scene: Ints
    status: Ints


@dataclass(frozen=True)
class Limits:
    """How many scenes are listed, and which are not."""

    max_scene_cloud: float
    """Percent; scenes cloudier than this are left out."""
    candidates: int
    """Scenes of a season's own window listed for a place."""


def holding(scenes: pa.Table, footprints: NDArray[np.object_]) -> Mask:
    """Which chips are entirely inside which scenes, (places, scenes). Scenes of one tile share one geometric test.

    Args:
        scenes: columns of `scene_table.SCENES`.
        footprints: of the chips, (places,), EPSG:4326.
    """
    texts = scenes["geometry"].combine_chunks().dictionary_encode()
    shapes = shapely.from_wkb(texts.dictionary.to_numpy(zero_copy_only=False))
    wrong = np.flatnonzero(~shapely.is_valid(shapes))
    shapes[wrong] = shapely.make_valid(shapes[wrong])
    holds = np.zeros((len(footprints), len(shapes)), bool)
    holds[tuple(shapely.STRtree(shapes).query(footprints, predicate="within"))] = True
    return holds[:, texts.indices.to_numpy()]


def rank_scenes(scenes: pa.Table, holds: Mask, epsg: int | None, windows: list[list[Interval]], limits: Limits) -> Slots:
    """All candidates of all places, ranked.

    Of the scenes of one overpass that contain a chip, take one: of the newest processing, in the chip's own UTM zone (its pixels
    need no resampling), the least cloudy, the last by name. In a season's own window the least cloudy scene comes first; unknown
    cloud cover comes after known; ties by time, then id. After them, with status `widened`, come the scenes of the period
    nearest in time to the window, ordered the same way.

    Args:
        scenes: columns of `scene_table.SCENES`, sorted by time and id.
        holds: which chips are entirely inside which scenes, (places, scenes), from `holding`.
        epsg: UTM zone of the chips; none: ignored.
        windows: `[period][season]` from `periods.period_windows`.
        limits: which scenes are listed.

    Returns:
        Rows sorted by place, period, season, rank; a slot without candidates has one row of status `missing`.
    """
    order = _Order.of(scenes, epsg, limits.max_scene_cloud)
    serves = order.one_of_each_pass(holds)
    parts = [np.empty((len(fields(Slots)), 0), np.int64)]
    for period, seasons in enumerate(windows):
        for season in range(len(seasons)):
            place, rank, scene, status = _season(serves, order, seasons, season, limits.candidates)
            parts.append(np.stack([place, np.full(len(place), period), np.full(len(place), season), rank, scene, status]))
    columns = np.concatenate(parts, axis=1)
    return Slots(*columns[:, np.lexsort((columns[3], columns[2], columns[1], columns[0]))])


@dataclass(frozen=True)
class _Order:
    """Ranking keys of scenes that do not depend on the place, as arrays (scenes,)."""

    when: Ints
    """Microseconds since 1970."""
    preference: Ints
    """Position in the order "known cloud cover before unknown, least cloudy, earliest, id"."""
    passing: Ints
    """Number of the overpass."""
    within_pass: Ints
    """Scenes sorted by overpass, the best of each first."""
    allowed: Mask
    """Not too cloudy."""

    @classmethod
    def of(cls, scenes: pa.Table, epsg: int | None, max_scene_cloud: float) -> _Order:
        when = scenes["datetime"].to_numpy().astype("datetime64[us]").astype(np.int64)
        cloud = scenes["cloud_cover"].to_numpy().astype(np.float64)
        count = np.arange(len(when))
        unknown, known = np.isnan(cloud), np.nan_to_num(cloud)
        preference = np.empty(len(when), np.int64)
        preference[np.lexsort((count, known, unknown))] = count
        passing = np.cumsum(np.diff(when, prepend=when[:1]) >= SAME_PASS_US)
        elsewhere = scenes["epsg"].to_numpy() != (epsg or 0)
        baseline = np.unique(scenes["processing_baseline"].fill_null("").to_numpy().astype(str), return_inverse=True)[1]
        within_pass = np.lexsort((-count, known, unknown, elsewhere, -baseline, passing))
        return cls(when, preference, passing, within_pass, ~(cloud > max_scene_cloud))

    def one_of_each_pass(self, holds: Mask) -> Mask:
        """Of the scenes of an overpass that hold a chip and are not too cloudy, the best. (places, scenes)."""
        ordered = (holds & self.allowed)[:, self.within_pass]
        passing = self.passing[self.within_pass]
        held = np.cumsum(ordered, axis=1, dtype=np.int32)
        first = np.flatnonzero(np.diff(passing, prepend=-1))
        before = np.concatenate([np.zeros((len(held), 1), np.int32), held], axis=1)[:, first]  # (places, passes)
        serves = np.empty_like(holds)
        serves[:, self.within_pass] = ordered & (
            held - before[:, np.searchsorted(first, np.arange(len(passing)), "right") - 1] == 1
        )
        return serves


def _season(serves: Mask, order: _Order, seasons: list[Interval], season: int, candidates: int) -> tuple[Ints, ...]:
    """Place, rank, scene, status of the ranked candidates of one season of one period for the places of `serves`."""
    edges = [_micros(start) for start, _ in seasons] + [_micros(seasons[-1][1])]
    start, end, when = edges[season], edges[season + 1], order.when
    gap = np.where(when < start, start - when, np.where(when >= end, when - end + 1, 0))
    timely = (when >= edges[0]) & (when < edges[-1])
    own, others = np.flatnonzero(timely & (gap == 0)), np.flatnonzero(timely & (gap > 0))
    planned, own = _first(serves, own[np.argsort(order.preference[own])], candidates)
    nearest, others = _first(serves, others[np.lexsort((order.preference[others], gap[others]))], len(seasons) + SPARE_WIDENED)
    ranked = np.argsort(order.preference[others])
    widened, others = nearest[:, ranked], others[ranked]
    chosen = np.concatenate([planned, widened], axis=1)
    place, column = np.nonzero(chosen)
    rank = (np.cumsum(chosen, axis=1, dtype=np.int32) - 1)[place, column]
    lacking = np.flatnonzero(~chosen.any(axis=1))
    return (
        np.r_[place, lacking],
        np.r_[rank, np.zeros(len(lacking), np.int64)],
        np.r_[np.r_[own, others][column], np.full(len(lacking), -1)].astype(np.int64),
        np.r_[np.where(column < len(own), PLANNED, WIDENED), np.full(len(lacking), MISSING)],
    )


def _first(serves: Mask, order: Ints, most: int) -> tuple[Mask, Ints]:
    """Each place's first scenes in that order, at most so many: (places, scenes in order), and the order."""
    ordered = serves[:, order]
    return ordered & (np.cumsum(ordered, axis=1, dtype=np.int32) <= most), order


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
