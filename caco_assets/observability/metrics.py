"""Prometheus metrics of running work: a table of all metrics and the functions that update them.

Runs are short-lived processes, several per machine. Each writes its metrics to files in a folder that all processes of the machine
share (`prometheus_client`'s multi-process mode), and one exporter serves them (`caco metrics`). The folder is named by that
library's variable, `PROMETHEUS_MULTIPROC_DIR`; if it is unset, nothing is counted or imported.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metric(NamedTuple):
    """One metric."""

    name: str
    """Name in Prometheus, without the suffix `_total` of a counter."""
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METRICS = (
    Metric("caco_chips", "counter", "Chips found for the archive, clear and encoded."),
    Metric("caco_chips_taken_over", "counter", "Chips that an earlier vintage had read already."),
    Metric("caco_quarantined", "counter", "Chips and places refused.", ("reason",)),
    Metric("caco_requests", "counter", "Requests to providers of imagery."),
    Metric("caco_request_repeats", "counter", "Of them, attempts after the first of a range."),
    Metric("caco_downloaded_bytes", "counter", "Bytes of answers that were used."),
    Metric("caco_archived_bytes", "counter", "Bytes of finished shards."),
    Metric("caco_shards", "counter", "Shards that a worker has ended with.", ("outcome",)),
    Metric("caco_shard_losses", "counter", "Shards started again because their machine or process was lost."),
    Metric("caco_shard_seconds", "histogram", "Wall clock of a shard that was made."),
    Metric("caco_shards_waiting", "gauge", "Shards of the backfill that are not finished."),
    Metric("caco_training_step", "gauge", "Optimiser steps done."),
    Metric("caco_training_images", "gauge", "Images seen by all processes; its derivative is samples per second."),
    Metric("caco_training_loss", "gauge", "Loss of the last step known."),
    Metric("caco_training_gradient_norm", "gauge", "Length of the gradient at the last step known."),
    Metric("caco_training_probe", "gauge", "The last probe during training."),
    Metric("caco_training_heard_timestamp_seconds", "gauge", "When a step was last heard of."),
)
"""Metrics of the workers. The exporter adds its own: see `resources/prometheus_exporter.py`."""
# from a shard of a few chips to one of thousands over a slow connection
_SECONDS = (1.0, 10.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 10_800.0)


def count(name: str, amount: float = 1.0, **labels: str) -> None:
    """Add to a counter."""
    if FOLDER in os.environ:
        _of(name, labels).inc(amount)


def gauge(name: str, value: float, **labels: str) -> None:
    """Set a gauge; the most recent value of all processes wins."""
    if FOLDER in os.environ:
        _of(name, labels).set(value)


def observe(name: str, value: float, **labels: str) -> None:
    """Add one observation to a histogram."""
    if FOLDER in os.environ:
        _of(name, labels).observe(value)


def _of(name: str, labels: dict[str, str]) -> Any:
    metric = _known()[name]
    return metric.labels(**labels) if labels else metric


@cache
def _known() -> dict[str, Any]:
    """The `prometheus_client` objects, which write to the folder."""
    # the library chooses its mode on import, and the files need a folder
    Path(os.environ[FOLDER]).mkdir(parents=True, exist_ok=True)
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    registry, made = CollectorRegistry(), {}
    for one in METRICS:
        words = {"name": one.name, "documentation": one.help, "labelnames": one.labels, "registry": registry}
        if one.kind == "counter":
            made[one.name] = Counter(**words)
        elif one.kind == "gauge":
            made[one.name] = Gauge(**words, multiprocess_mode="mostrecent")
        else:
            made[one.name] = Histogram(**words, buckets=_SECONDS)
    return made
