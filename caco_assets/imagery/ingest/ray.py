"""Shards of the archive on a Ray cluster: one task per shard, on whichever machine has cores for it.

The cluster is the one of `RAY_ADDRESS`, else one of this machine's own that ends with the work. The home folder must be the same to
all machines. A machine that is lost costs what its tasks had not yet spooled: Ray starts them again elsewhere, and they go on from
there. Where a shard is made changes no byte of it.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from caco_assets.core.errors import UserError
from caco_assets.core.products import Product
from caco_assets.observability.logs import bound, log_to
from caco_assets.observability.metrics import count, gauge
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)

MOST_LOSSES = 8
"""Times that a shard is started again when its machine is lost; more, and the shard itself kills its machines."""
_POLL_S = 0.5
_AHEAD = 2_000
"""Tasks that Ray is told of at once: enough for a cluster to grow by, few enough to wait on."""


def ingest_on_ray(settings: Settings, shards: Sequence[int]) -> Iterator[tuple[int, Product]]:
    """Make the shards on the cluster; gives each as it is finished.

    Raises:
        UserError: ray is not installed, no machine has the cores, a shard failed for a reason the user can put right (those under
            way stop, what was read is kept), or a shard's machine was lost too often.
    """
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError as error:
        raise UserError('imagery.launcher=ray: ray is not installed here; pip install "ray", or set launcher to inline') from error
    with _cluster(settings):
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        lines: Any = ray.remote(_Lines).options(num_cpus=0, scheduling_strategy=here).remote()
        # exceptions are the shard's; only lost machines and killed processes are worth another try
        work: Any = ray.remote(_work).options(num_cpus=settings.imagery.workers, max_retries=MOST_LOSSES, retry_exceptions=False)
        waiting, under_way, starts = list(shards)[::-1], {}, Counter[int]()
        try:
            while waiting or under_way:
                while waiting and len(under_way) < _AHEAD:
                    shard = waiting.pop()
                    under_way[work.remote(settings, shard, lines)] = shard
                gauge("caco_shards_waiting", len(waiting) + len(under_way))
                done, _ = ray.wait(list(under_way), num_returns=1, timeout=_POLL_S)
                _pass_on(ray.get(lines.take.remote()), starts)
                for one in done:
                    yield under_way.pop(one), _result(one)
            _pass_on(ray.get(lines.take.remote()), starts)
            gauge("caco_shards_waiting", 0)
        finally:
            for one in under_way:
                with suppress(Exception):  # it has just ended by itself
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


def _pass_on(told: list[tuple[int, str | None]], starts: Counter[int]) -> None:
    """Say what the workers said; a second start of a shard means that its first machine is gone."""
    for shard, line in told:
        with bound(shard=f"{shard:04d}"):
            if line is not None:
                logger.info(line)
                continue
            starts[shard] += 1
            if starts[shard] > 1:
                count("caco_shard_losses")
                logger.info(f"shard {shard:04d}: its machine or process was lost; started again, it goes on from what was read")


class _Lines:
    """What the workers say, kept for the one who asked for the work. An actor on its machine."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str | None]] = []

    def add(self, shard: int, line: str | None) -> None:
        self._lines.append((shard, line))

    def take(self) -> list[tuple[int, str | None]]:
        taken, self._lines = self._lines, []
        return taken


def _work(settings: Settings, shard: int, lines: Any) -> Product:
    """What a worker does. Nobody waits for lines: if they cannot be told the work goes on."""
    from caco_assets.imagery.stage import ingest_shard

    lines.add.remote(shard, None)
    with log_to(lambda _level, line: lines.add.remote(shard, line)):
        return ingest_shard(settings, shard)


@contextmanager
def _cluster(settings: Settings) -> Iterator[None]:
    """A connection to the cluster, for the time of the work; one that this process has already is used and kept.

    Raises:
        UserError: no machine of the cluster has the cores that one shard wants.
    """
    # telemetry is off for every user
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's workers otherwise give way to every other program
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    known, cores = bool(os.environ.get("RAY_ADDRESS")), settings.imagery.workers
    state = None if known else tempfile.mkdtemp(prefix="caco-ray-")
    own = {} if known else {"num_cpus": max(cores, os.cpu_count() or 1), "include_dashboard": False, "_temp_dir": state}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    try:
        largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
        # a cluster that grows by itself may have no worker at all yet
        if 0 < largest < cores and not os.environ.get("CACO_RAY_GROWS"):
            raise UserError(
                f"imagery.workers={cores}: no machine of the Ray cluster has so many cores (the largest has {largest:.0f}), and "
                "each shard takes as many; lower it, or start larger machines (CACO_RAY_GROWS=1: they will come by themselves)"
            )
        yield
    finally:
        ray.shutdown()
        if state is not None:
            shutil.rmtree(state, ignore_errors=True)
