"""Which calendars a profile may have."""

import pytest

from caco_assets.core.errors import UserError
from caco_assets.settings import load_settings


def settings(tmp_path, gap_years: int, period_months: int):
    return load_settings("tiny", home=tmp_path, gap_years=gap_years, imagery={"period_months": period_months})


@pytest.mark.parametrize(("gap_years", "period_months"), [(1, 12), (20, 240), (50, 600), (4, 1)])
def test_a_period_may_be_as_long_as_the_gap(tmp_path, gap_years, period_months):
    assert settings(tmp_path, gap_years, period_months).imagery.period_months == period_months


@pytest.mark.parametrize(
    ("gap_years", "period_months", "message"),
    [
        (20, 241, r"imagery.period_months=241: the two periods overlap with gap_years=20; at most 240 months"),
        (1, 0, r"period_months"),
        (101, 12, r"gap_years"),
    ],
)
def test_periods_that_overlap_or_reach_too_far_are_errors(tmp_path, gap_years, period_months, message):
    with pytest.raises(UserError, match=message):
        settings(tmp_path, gap_years, period_months)


def test_the_windows_of_the_longest_calendar_are_dates():
    from caco_assets.imagery.scenes.periods import period_windows

    windows = period_windows("1950-01", gap_years=100, period_months=1200, seasons=4)
    assert windows[0][0][0].year == 1750
