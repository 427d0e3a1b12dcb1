"""Shards of the archive on a Ray cluster: one task per shard, on any machine that has cores for it.

The cluster is the one of `RAY_ADDRESS`; without it, a temporary one on this machine. All machines must see the same home folder.
A lost machine costs what its tasks had not yet written to their ingest journals: Ray restarts them elsewhere, and they resume from
there. A shard's bytes do not depend on the machine that makes it.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from caco_assets.core.errors import UserError
from caco_assets.core.products import Product
from caco_assets.observability.logs import bound, log_to
from caco_assets.observability.metrics import count, gauge
from caco_assets.resources.ray_cluster import cluster
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)

MOST_LOSSES = 8
"""Restarts of a shard whose machine was lost; after more, the shard itself is assumed to be the cause."""
_POLL_S = 0.5
_AHEAD = 2_000
"""Tasks submitted to Ray at once: enough for a cluster to scale up by, few enough to wait on."""

IngestShard = Callable[[Settings, int], Product]
"""Makes one shard; a module's function, so that workers can import it."""


def ingest_on_ray(settings: Settings, shards: Sequence[int], work: IngestShard) -> Iterator[tuple[int, Product]]:
    """Make the shards on the cluster; yields each as it is finished.

    Args:
        settings: of the profile.
        shards: numbers of the shards.
        work: makes one shard on a worker.

    Raises:
        UserError: ray is not installed, no machine has the cores, a shard failed for a reason the user can fix (running
            shards stop, what was read is kept), or a shard's machine was lost too often.
    """
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError as error:
        raise UserError('imagery.launcher=ray: ray is not installed here; pip install "ray", or set launcher to inline') from error
    with cluster(settings.imagery.workers):
        _check_cores(settings.imagery.workers)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        lines: Any = ray.remote(_Lines).options(num_cpus=0, scheduling_strategy=here).remote()
        # exceptions are the shard's; only lost machines and killed processes are retried
        task: Any = ray.remote(_run).options(num_cpus=settings.imagery.workers, max_retries=MOST_LOSSES, retry_exceptions=False)
        waiting, under_way, starts = list(shards)[::-1], {}, Counter[int]()
        try:
            while waiting or under_way:
                while waiting and len(under_way) < _AHEAD:
                    shard = waiting.pop()
                    under_way[task.remote(work, settings, shard, lines)] = shard
                gauge("caco_shards_waiting", len(waiting) + len(under_way))
                done, _ = ray.wait(list(under_way), num_returns=1, timeout=_POLL_S)
                _log_lines(ray.get(lines.take.remote()), starts)
                for one in done:
                    yield under_way.pop(one), _result(one)
            _log_lines(ray.get(lines.take.remote()), starts)
            gauge("caco_shards_waiting", 0)
        finally:
            for one in under_way:
                with suppress(Exception):  # it may have just ended by itself
                    ray.cancel(one, force=True)


def _result(task: Any) -> Product:
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

    try:
        return ray.get(task)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from error
        raise
    except (WorkerCrashedError, NodeDiedError, OutOfMemoryError) as error:
        raise UserError(
            f"imagery.launcher=ray: a shard's machine or process was lost {MOST_LOSSES + 1} times, most often because memory runs "
            "out: lower imagery.workers or sampling.places_per_shard, or give the workers more; what was read is kept"
        ) from error


def _log_lines(lines: list[tuple[int, str | None]], starts: Counter[int]) -> None:
    """Log what the workers logged; a second start of a shard means that its first machine was lost."""
    for shard, line in lines:
        with bound(shard=f"{shard:04d}"):
            if line is not None:
                logger.info(line)
                continue
            starts[shard] += 1
            if starts[shard] > 1:
                count("caco_shard_losses")
                logger.warning(f"shard {shard:04d}: its machine or process was lost; restarted, it resumes from what was read")


class _Lines:
    """Log lines of the workers, until the caller takes them. An actor on the caller's machine."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str | None]] = []

    def add(self, shard: int, line: str | None) -> None:
        self._lines.append((shard, line))

    def take(self) -> list[tuple[int, str | None]]:
        taken, self._lines = self._lines, []
        return taken


def _run(work: IngestShard, settings: Settings, shard: int, lines: Any) -> Product:
    """A worker's task. Log lines are sent without waiting: a shard does not fail when they cannot be delivered."""
    lines.add.remote(shard, None)
    with log_to(lambda _level, line: lines.add.remote(shard, line)):
        return work(settings, shard)


def _check_cores(cores: int) -> None:
    """Check that a machine of the cluster has the cores that one shard takes.

    Raises:
        UserError: none has them.
    """
    import ray

    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    # an autoscaling cluster may have no worker yet
    if 0 < largest < cores and not os.environ.get("CACO_RAY_GROWS"):
        raise UserError(
            f"imagery.workers={cores}: no machine of the Ray cluster has so many cores (the largest has {largest:.0f}), and "
            "each shard takes as many; lower it, or start larger machines (CACO_RAY_GROWS=1: the cluster adds them by itself)"
        )
