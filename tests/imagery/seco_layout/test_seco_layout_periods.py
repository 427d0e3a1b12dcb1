"""The rules that part a place's dates in an early and a late period."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.imagery.scenes.periods import period_windows
from caco_assets.imagery.seco_layout.periods import RULES, slots_of

WINDOWS = period_windows("2022-12", gap_years=4, period_months=12, seasons=3)
"""2018 and 2022."""


def days(*names: str) -> list[datetime]:
    return [datetime.fromisoformat(name).replace(tzinfo=UTC) for name in names]


CACO = days("2017-01-05", "2017-04-01", "2017-07-01", "2021-01-05", "2021-04-01", "2021-07-01")


def test_the_longest_pause_of_a_year_or_more_parts_the_periods():
    assert slots_of(CACO, "gap", WINDOWS) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_without_a_pause_of_a_year_all_dates_are_late():
    assert slots_of(days("2020-01-01", "2020-06-01", "2020-12-01"), "gap", WINDOWS) == [(1, 0), (1, 1), (1, 2)]
    assert slots_of(days("2020-01-01"), "gap", WINDOWS) == [(1, 0)]
    assert slots_of([], "gap", WINDOWS) == []


def test_halves_give_the_middle_date_to_the_late_period():
    assert slots_of(CACO[:5], "halves", WINDOWS) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_the_calendar_leaves_out_what_lies_in_neither_period():
    dates = days("2017-12-31", "2018-01-01", "2018-12-31", "2020-06-01", "2022-03-01", "2023-01-01")
    assert slots_of(dates, "calendar", WINDOWS) == [None, (0, 0), (0, 1), None, (1, 0), None]


def test_of_more_dates_than_seasons_the_newest_of_each_period_are_kept():
    dates = days("2018-01-01", "2018-02-01", "2018-03-01", "2018-04-01", "2022-01-01")
    assert slots_of(dates, "gap", WINDOWS) == [None, (0, 0), (0, 1), (0, 2), (1, 0)]


@pytest.mark.parametrize("rule", RULES)
@given(st.lists(st.datetimes(datetime(2015, 1, 1), datetime(2024, 1, 1)), max_size=14))
def test_no_rule_gives_a_slot_twice_or_an_older_date_to_a_later_slot(rule, dates):
    ordered = sorted(date.replace(tzinfo=UTC) for date in dates)
    taken = [slot for slot in slots_of(ordered, rule, WINDOWS) if slot is not None]
    assert taken == sorted(set(taken))
    assert all(period in (0, 1) and season in range(3) for period, season in taken)
