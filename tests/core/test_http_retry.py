"""When a failed request is repeated."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from caco_assets.core.http_retry import backoff_s, retry_after


def test_retry_after_is_read_as_seconds_and_as_a_date():
    assert retry_after({}) is None
    assert retry_after({"Retry-After": "7"}) == 7.0
    assert retry_after({"Retry-After": "soon"}) is None
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    assert 15 < (retry_after({"Retry-After": moment}) or 0) <= 20
    assert retry_after({"Retry-After": format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)}) == 0.0


@pytest.mark.parametrize("text", ["", "-3", "1.5", "Sat, 99 Nov 99999 00:00:00 GMT", "Sat, 21 Nov 2026 99:00:00 GMT"])
def test_an_invalid_retry_after_is_no_error(text):
    wait = retry_after({"Retry-After": text})
    assert wait is None or wait >= 0


def test_a_date_without_a_zone_is_read_as_utc():
    moment = (datetime.now(UTC) + timedelta(seconds=20)).strftime("%a, %d %b %Y %H:%M:%S -0000")
    assert 15 < (retry_after({"Retry-After": moment}) or 0) <= 20


def test_a_very_long_wait_is_reported_in_full():
    assert retry_after({"Retry-After": "864000"}) == 864_000


def test_waiting_times_are_random_and_their_limit_doubles_up_to_the_longest():
    dice = random.Random(0)
    for failures, limit in ((1, 0.4), (2, 0.8), (3, 1.6), (7, 25.6), (8, 30.0), (60, 30.0)):
        waits = [backoff_s(failures, 0.4, 30.0, dice) for _ in range(200)]
        assert all(0 <= wait <= limit for wait in waits)
        assert max(waits) > 0.9 * limit
        assert min(waits) < 0.1 * limit
