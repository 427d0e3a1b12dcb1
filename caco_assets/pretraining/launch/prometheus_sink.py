"""Exports the metrics of a training to Prometheus, from the process that started the training."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from caco_assets.observability.metrics import FOLDER, gauge
from caco_assets.pretraining.training.metrics_log import MetricsSink

_NAMES = {"loss": "caco_training_loss", "grad_norm": "caco_training_gradient_norm", "probe": "caco_training_probe"}


class PrometheusSink:
    """Sets the gauges of `observability.metrics`."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `MetricsSink`."""
        gauge("caco_training_step", step)
        gauge("caco_training_images", step * self._batch_size)
        gauge("caco_training_heard_timestamp_seconds", time.time())
        for name, metric in _NAMES.items():
            if name in values:
                gauge(metric, values[name])


def prometheus_sinks(batch_size: int) -> tuple[MetricsSink, ...]:
    """The Prometheus sink, if a metrics folder is set."""
    return (PrometheusSink(batch_size),) if FOLDER in os.environ else ()
