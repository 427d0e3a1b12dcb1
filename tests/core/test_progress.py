"""Progress: plain lines that say what, how far, how fast and how long still."""

from __future__ import annotations

import logging

import pytest

from caco_assets.core import progress
from caco_assets.core.progress import INTERVAL_S, Progress, track
from caco_assets.observability.logs import log_to_stderr, not_on_stderr


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


def test_a_line_comes_when_the_interval_is_over_and_once_at_the_end(logged, clock):
    lines = logged()
    step = Progress("ingest", 40, "chips")
    for _ in range(20):
        clock.now += 0.5
        step.advance(2)
    step.close("done")
    assert len(lines) == 10 / INTERVAL_S + 1
    assert lines[0].startswith("ingest:  50% 20/40")
    assert "chips/s" in lines[0]
    assert lines[-1].startswith("ingest: 100% 40/40")
    assert lines[-1].endswith("done")
    assert all("\n" not in line and "\r" not in line for line in lines)


def test_the_last_line_is_not_said_twice(logged, clock):
    lines = logged()
    step = Progress("ingest", 10, "chips")
    clock.now += INTERVAL_S
    step.advance(10)
    step.close()
    assert len(lines) == 1


def test_a_resumed_step_counts_its_rate_from_what_it_did_itself(logged, clock):
    lines = logged()
    step = Progress("epochs", 100, "epochs", done=90)
    clock.now += 10
    step.advance(5)
    assert "95/100" in lines[0]
    assert "2.00s/epochs" in lines[0]


def test_tracking_gives_every_item_and_a_last_line(logged):
    lines = logged()
    assert list(track("abc", "read", 3, "files")) == ["a", "b", "c"]
    assert "3/3" in lines[-1]


def test_a_step_without_work_still_ends_with_a_line(logged):
    lines = logged()
    assert list(track([], "read", 0, "files")) == []
    assert len(lines) == 1


def test_a_command_shows_the_lines_on_standard_error(capsys):
    logger = logging.getLogger("caco_assets.room")
    log_to_stderr()
    with not_on_stderr():
        logger.info("captured elsewhere")
    logger.info("one line, 100%")
    assert capsys.readouterr() == ("", "one line, 100%\n")
