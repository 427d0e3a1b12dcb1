"""Logs the progress of a long step as plain lines (count, rate, time left) for terminals, log files and Dagster."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

logger = logging.getLogger(__name__)

# A line every five seconds shows activity and keeps logs readable.
INTERVAL_S = 5.0


class Progress:
    """Counts finished units of one step and logs them at most every `INTERVAL_S` seconds, plus once at the end."""

    def __init__(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._resumed, self._done, self._logged = done, done, -1
        self._start = self._last = time.monotonic()

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units; `note` (a loss, a rate) is appended to the line."""
        self._done += n
        now = time.monotonic()
        if now - self._last >= INTERVAL_S:
            self._last = now
            self._log(now - self._start, note)

    def close(self, note: str = "") -> None:
        """Log the last line, unless it would repeat the one before."""
        if self._logged == self._done and not note:
            return
        self._log(time.monotonic() - self._start, note)

    def _log(self, elapsed: float, note: str) -> None:
        meter = tqdm.format_meter(
            self._done, self._total, elapsed, prefix=self._what, unit=f" {self._unit}", ncols=0, initial=self._resumed
        )
        self._logged = self._done
        # the space before the unit gives "4 chips/s"; a slow step reads "2.0s/chip"
        logger.info(f"{meter.replace('s/ ', 's/')} {note}".rstrip())


def track[T](items: Iterable[T], what: str, total: int, unit: str) -> Iterator[T]:
    """Iterate over `items`, logging each as one finished unit."""
    progress = Progress(what, total, unit)
    for item in items:
        yield item
        progress.advance()
    progress.close()
