"""Console log of a run: one line per message with time, step and text. Dagster's event log keeps everything.

With `CACO_LOG=json`, lines are JSON objects with the run, its step and the fields of `observability/logs.py`.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import dagster as dg

from caco_assets.observability.logs import json_line, structured


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {})
        original = meta.get("orig_message")
        message = record.getMessage() if original is None else original
        if structured():
            own = {"run": meta.get("run_id"), "job": meta.get("job_name"), "step": meta.get("step_key")}
            own = {name: value for name, value in own.items() if value}
            return json_line(message, record.levelname.lower(), datetime.fromtimestamp(record.created, UTC), **own)
        step = (meta.get("step_key") or "").replace("__", " ")
        return f"{self.formatTime(record, '%H:%M:%S')}  {step:<12}  {message}"


class _Speaking(logging.Filter):
    """Passes messages of the assets and failures; Dagster's engine events stay in the event log."""

    def filter(self, record: logging.LogRecord) -> bool:
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        return event is None or getattr(event, "is_failure", False)


@dg.logger(config_schema={}, description="One line per message on standard error.")
def console(_: dg.InitLoggerContext) -> logging.Logger:
    """The logger that `Definitions` names `console`."""
    logger = logging.Logger("caco", level=logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    handler.addFilter(_Speaking())
    logger.addHandler(handler)
    return logger
