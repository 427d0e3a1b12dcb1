"""Log output with fields (run, vintage, shard) on each line, as text or, with `CACO_LOG=json`, as JSON objects.

Modules log to `logging.getLogger(__name__)`. A command shows the lines on standard error; Dagster captures them (`python_logs` in
`dagster.yaml`), including those of a training that it started. A command or a Dagster run binds fields for its whole
process, and a stage binds them while it works on a shard.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

PACKAGE = logging.getLogger("caco_assets")
VARIABLE = "CACO_LOG"
_START = '{"time": '
_PROCESS: dict[str, str] = {}
_HERE: ContextVar[Mapping[str, str] | None] = ContextVar("caco_log_fields", default=None)


def structured() -> bool:
    """Whether lines are JSON objects."""
    return os.environ.get(VARIABLE) == "json"


def bind(**fields: str) -> None:
    """Add fields to every line that this process logs from now on."""
    _PROCESS.update(fields)


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Add fields to the lines that this thread logs while the block runs."""
    token = _HERE.set({**(_HERE.get() or {}), **fields})
    try:
        yield
    finally:
        _HERE.reset(token)


def fields() -> dict[str, str]:
    """The fields currently bound."""
    return {**_PROCESS, **(_HERE.get() or {})}


def json_line(message: str, level: str = "info", when: datetime | None = None, **more: str) -> str:
    """One JSON object: `time` (UTC), `level`, `message`, then the fields; a line that already is one is unchanged."""
    if message.startswith(_START):
        return message
    time = (when or datetime.now(UTC)).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level, "message": message, **fields(), **more}, ensure_ascii=False)


class _Stderr(logging.Handler):
    """Writes one line per record to the current standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = record.getMessage()
            sys.stderr.write((json_line(line, record.levelname.lower()) if structured() else line) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class _Forward(logging.Handler):
    def __init__(self, log: Callable[[int, str], None], thread: int | None) -> None:
        super().__init__()
        self._log, self._thread = log, thread

    def emit(self, record: logging.LogRecord) -> None:
        if self._thread in (None, record.thread):
            self._log(record.levelno, record.getMessage())


_STDERR = _Stderr()


def log_to_stderr() -> None:
    """Show the package's lines on standard error from now on."""
    PACKAGE.setLevel(logging.INFO)
    PACKAGE.addHandler(_STDERR)


@contextmanager
def not_on_stderr() -> Iterator[None]:
    """Show no lines on standard error while the block runs, because something else captures them."""
    shown = _STDERR in PACKAGE.handlers
    PACKAGE.removeHandler(_STDERR)
    try:
        yield
    finally:
        if shown:
            PACKAGE.addHandler(_STDERR)


@contextmanager
def log_to(log: Callable[[int, str], None], *, this_thread: bool = False) -> Iterator[None]:
    """Pass level and text of each line to `log` while the block runs; with `this_thread`, only lines of the calling thread."""
    handler, level = _Forward(log, threading.get_ident() if this_thread else None), PACKAGE.level
    PACKAGE.setLevel(logging.INFO)
    PACKAGE.addHandler(handler)
    try:
        yield
    finally:
        PACKAGE.removeHandler(handler)
        PACKAGE.setLevel(level)


def log_nothing() -> None:
    """Drop the lines of this process because another process logs for it."""
    PACKAGE.setLevel(logging.CRITICAL)
