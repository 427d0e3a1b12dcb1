"""Three rules that divide the dates of a place into an early and a late period."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from caco_assets.imagery.scenes.periods import Interval, period_spans

MIN_GAP = timedelta(days=365)
"""Dates of one period follow each other within a year; a longer pause separates the periods."""

Windows = list[list[Interval]]
Slot = tuple[int, int]
"""Period (0 early, 1 late) and season."""


def by_gap(dates: Sequence[datetime], _: Windows) -> Sequence[int | None]:
    """The longest pause between two dates separates the periods; without one of a year, all dates are late."""
    pauses = [later - earlier for earlier, later in itertools.pairwise(dates)]
    if not pauses or max(pauses) < MIN_GAP:
        return [1] * len(dates)
    cut = pauses.index(max(pauses)) + 1
    return [0] * cut + [1] * (len(dates) - cut)


def by_halves(dates: Sequence[datetime], _: Windows) -> Sequence[int | None]:
    """The newer half is late; of an odd number the middle one too. For sets of a single year, as SeCo's."""
    early = len(dates) // 2
    return [0] * early + [1] * (len(dates) - early)


def by_calendar(dates: Sequence[datetime], windows: Windows) -> Sequence[int | None]:
    """The profile's vintage, gap and length of the periods decide; a date outside of both is not used."""
    spans = period_spans(windows)
    return [next((period for period, (start, end) in enumerate(spans) if start <= date < end), None) for date in dates]


RULES: dict[str, Callable[[Sequence[datetime], Windows], Sequence[int | None]]] = {
    "gap": by_gap,
    "halves": by_halves,
    "calendar": by_calendar,
}


def slots_of(dates: Sequence[datetime], rule: str, windows: Windows) -> list[Slot | None]:
    """Period and season of each date; seasons are the order of the dates within their period.

    Args:
        dates: of one place, oldest first.
        rule: a name in `RULES`.
        windows: `[period][season]` of the profile, from `periods.period_windows`.

    Returns:
        One entry per date; none for a date that is not used: outside the periods, or older than as many dates of its period
        as there are seasons (the newest are kept).
    """
    seasons = len(windows[0])
    periods = RULES[rule](dates, windows)
    slots: list[Slot | None] = [None] * len(dates)
    for period in (0, 1):
        kept = [index for index, own in enumerate(periods) if own == period][-seasons:]
        for season, index in enumerate(kept):
            slots[index] = (period, season)
    return slots
