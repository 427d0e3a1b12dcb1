"""Lines of progress with the fields that say whose they are: run, vintage, shard. `CACO_LOG=json` writes them as JSON objects.

Without it a line is a line, as people read it. The fields are bound by whoever knows them: a command or a Dagster run for all that
its process says, a stage for the time it works on a shard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

VARIABLE = "CACO_LOG"
_START = '{"time": '
_PROCESS: dict[str, str] = {}
_HERE: ContextVar[Mapping[str, str] | None] = ContextVar("caco_log_fields", default=None)


def structured() -> bool:
    """Whether lines are to be JSON objects."""
    return os.environ.get(VARIABLE) == "json"


def bind(**fields: str) -> None:
    """Fields of everything that this process says from now on."""
    _PROCESS.update(fields)


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Further fields of what is said while the block runs, in this thread."""
    token = _HERE.set({**(_HERE.get() or {}), **fields})
    try:
        yield
    finally:
        _HERE.reset(token)


def fields() -> dict[str, str]:
    """The fields of a line that is said now."""
    return {**_PROCESS, **(_HERE.get() or {})}


def json_line(message: str, level: str = "info", when: datetime | None = None, **more: str) -> str:
    """One JSON object: `time` (UTC), `level`, `message`, then the fields; what a child process has said as one stays."""
    if message.startswith(_START):
        return message
    time = (when or datetime.now(UTC)).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level, "message": message, **fields(), **more}, ensure_ascii=False)
