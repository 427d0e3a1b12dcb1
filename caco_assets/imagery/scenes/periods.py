"""The two periods of a vintage and their seasons."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

Interval = tuple[datetime, datetime]
"""Half-open in UTC: the first instant inside, the first instant after."""


def month_start(year: int, month: int, shift: int = 0) -> datetime:
    """Midnight UTC of the first day of a month, `shift` months later (negative: earlier)."""
    years, index = divmod(year * 12 + month - 1 + shift, 12)
    return datetime(years, index + 1, 1, tzinfo=UTC)


def period_windows(vintage: str, gap_years: int, period_months: int, seasons: int) -> list[list[Interval]]:
    """The windows in which each season's date is searched.

    Args:
        vintage: `YYYY-MM`; the late period ends with the last day of this month.
        gap_years: the early period is the late one moved back by this many years.
        period_months: length of each period in calendar months.
        seasons: number of windows of equal length per period.

    Returns:
        `[period][season]` (period 0 early, 1 late) of half-open UTC intervals, oldest first and without holes in a period.
    """
    year, month = (int(part) for part in vintage.split("-"))
    periods = []
    for years_back in (gap_years, 0):
        start = month_start(year, month, 1 - period_months - 12 * years_back)
        end = month_start(year, month, 1 - 12 * years_back)
        edges = [start + (end - start) * season / seasons for season in range(seasons)] + [end]
        periods.append(list(itertools.pairwise(edges)))
    return periods


def period_spans(windows: list[list[Interval]]) -> list[Interval]:
    """First and last instant of each period of `period_windows`."""
    return [(seasons[0][0], seasons[-1][1]) for seasons in windows]
