import itertools
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from caco_assets.imagery.scenes.periods import month_start, period_spans, period_windows

vintages = st.builds("{:04d}-{:02d}".format, st.integers(2016, 2060), st.integers(1, 12))


def test_the_late_period_ends_with_the_last_day_of_the_vintage_month():
    early, late = period_spans(period_windows("2026-02", 4, 12, 5))
    assert late == (datetime(2025, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))
    assert early == (datetime(2021, 3, 1, tzinfo=UTC), datetime(2022, 3, 1, tzinfo=UTC))


def test_december_rolls_over_into_the_next_year():
    assert period_spans(period_windows("2026-12", 1, 1, 1))[1] == (
        datetime(2026, 12, 1, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    )


@given(vintages, st.integers(1, 10), st.integers(1, 36), st.integers(1, 12))
def test_windows_tile_each_period_without_holes_and_are_equally_long(vintage, gap_years, months, seasons):
    periods = period_windows(vintage, gap_years, months, seasons)
    assert [len(windows) for windows in periods] == [seasons, seasons]
    for windows in periods:
        for (_, end), (start, _) in itertools.pairwise(windows):
            assert end == start
        lengths = [(end - start).total_seconds() for start, end in windows]
        assert max(lengths) - min(lengths) < 1e-5
        assert min(lengths) > 0


@given(vintages, st.integers(1, 10), st.integers(1, 36), st.integers(1, 12))
def test_the_early_period_is_the_late_one_moved_back_by_whole_years(vintage, gap_years, months, seasons):
    early, late = period_spans(period_windows(vintage, gap_years, months, seasons))
    for before, after in zip(early, late, strict=True):
        assert (before.year + gap_years, before.month, before.day) == (after.year, after.month, 1)
    assert month_start(late[0].year, late[0].month, months) == late[1]
