"""Progress of a long step as plain lines: what, how far, how fast, time left. Works in a terminal, a log file and Dagster."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator

from tqdm import tqdm

from caco_assets.observability.logs import json_line, structured

Say = Callable[[str], None]

# A line each five seconds: often enough to see life, rare enough to keep logs readable.
INTERVAL_S = 5.0


def to_stderr(line: str) -> None:
    """The default outlet: one line on standard error; `CACO_LOG=json` makes it a JSON object."""
    print(json_line(line) if structured() else line, file=sys.stderr, flush=True)


class Progress:
    """Counts finished units of one step and says so at most every `INTERVAL_S` seconds, plus once at the end."""

    def __init__(self, what: str, total: int, unit: str, say: Say = to_stderr, done: int = 0) -> None:
        self._what, self._total, self._unit, self._say = what, total, unit, say
        self._resumed, self._done, self._said = done, done, -1
        self._start = self._last = time.monotonic()

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units; `note` (a loss, a rate) stands at the end of the line."""
        self._done += n
        now = time.monotonic()
        if now - self._last >= INTERVAL_S:
            self._last = now
            self._line(now - self._start, note)

    def close(self, note: str = "") -> None:
        """Say the last line, where it would say anything new."""
        if self._said == self._done and not note:
            return
        self._line(time.monotonic() - self._start, note)

    def _line(self, elapsed: float, note: str) -> None:
        meter = tqdm.format_meter(
            self._done, self._total, elapsed, prefix=self._what, unit=f" {self._unit}", ncols=0, initial=self._resumed
        )
        self._said = self._done
        # the blank before the unit is for "4 chips/s"; a slow step reads "2.0s/chip"
        self._say(f"{meter.replace('s/ ', 's/')} {note}".rstrip())


def track[T](items: Iterable[T], what: str, total: int, unit: str, say: Say = to_stderr) -> Iterator[T]:
    """Iterate over `items`, reporting each as one finished unit."""
    progress = Progress(what, total, unit, say)
    for item in items:
        yield item
        progress.advance()
    progress.close()
