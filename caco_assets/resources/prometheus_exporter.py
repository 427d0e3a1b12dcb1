"""Serves the metrics of all processes of this machine, and the state of Dagster and the machine, to Prometheus.

`caco metrics` runs it, once per machine (in a pod: as a sidecar of the worker that shares its metrics folder).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from caco_assets.core.errors import UserError
from caco_assets.observability.gpu import gpus
from caco_assets.observability.metrics import FOLDER, Metric

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

READ = (
    Metric("caco_runs", "gauge", "Runs of Dagster that are not at their end.", ("status",)),
    Metric("caco_disk_free_bytes", "gauge", "Free bytes of the disk of the workspace."),
    Metric("caco_gpu_busy_ratio", "gauge", "Share of the last second in which a kernel ran.", ("gpu",)),
    Metric("caco_gpu_memory_used_bytes", "gauge", "Memory of a GPU in use.", ("gpu",)),
    Metric("caco_gpu_memory_bytes", "gauge", "Memory of a GPU.", ("gpu",)),
)
"""Metrics that are read at each scrape, besides those of the workers."""
_STATUSES = {"queued": dg.DagsterRunStatus.QUEUED, "starting": dg.DagsterRunStatus.STARTING, "started": dg.DagsterRunStatus.STARTED}


class _Reader:
    """A collector of `prometheus_client`: asked at each scrape."""

    def __init__(self, workspace: Path, instance: dg.DagsterInstance | None) -> None:
        self._workspace, self._instance = workspace, instance

    def collect(self) -> Iterator[Family]:
        """The current values of `READ`."""
        from prometheus_client.core import GaugeMetricFamily

        families = {one.name: GaugeMetricFamily(one.name, one.help, labels=one.labels) for one in READ}
        if self._instance is not None:
            for name, status in _STATUSES.items():
                runs = self._instance.get_runs_count(dg.RunsFilter(statuses=[status]))
                families["caco_runs"].add_metric([name], runs)
        families["caco_disk_free_bytes"].add_metric([], shutil.disk_usage(self._workspace).free)
        for gpu in gpus():
            families["caco_gpu_busy_ratio"].add_metric([gpu.number], gpu.busy)
            families["caco_gpu_memory_used_bytes"].add_metric([gpu.number], gpu.used_bytes)
            families["caco_gpu_memory_bytes"].add_metric([gpu.number], gpu.bytes)
        yield from families.values()


def serve(host: str, port: int, workspace: Path, ready: Callable[[int], None]) -> None:
    """Serve until the process ends.

    Args:
        host: address to listen on.
        port: 0: a free one.
        workspace: the workspace whose disk, and Dagster (if `DAGSTER_HOME` is set), are reported.
        ready: called with the port.

    Raises:
        UserError: no metrics folder is set, or the port is taken.
    """
    if FOLDER not in os.environ:
        raise UserError(f"{FOLDER} is not set: name one folder there for this command and for the workers, whose figures it serves")
    Path(os.environ[FOLDER]).mkdir(parents=True, exist_ok=True)
    workspace.mkdir(parents=True, exist_ok=True)
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    instance = dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else None
    registry.register(_Reader(workspace, instance))
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise UserError(
            f"--port {port}: {host} has it in use already ({error.strerror}); choose another, or 0 for a free one"
        ) from error
    ready(server.server_port)
    while True:
        time.sleep(3600)
