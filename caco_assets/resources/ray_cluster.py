"""Connects to the Ray cluster at `RAY_ADDRESS`, else to a local one that stops with the block."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cluster(cores: int) -> Iterator[None]:
    """Connect to the cluster while the block runs; an existing connection of this process is reused and kept open.

    Args:
        cores: the least number of cores that a local cluster reports, so that tasks take turns on a small machine.
    """
    # no usage statistics
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # by default, Ray lowers the priority of its workers
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    remote = bool(os.environ.get("RAY_ADDRESS"))
    state = None if remote else tempfile.mkdtemp(prefix="caco-ray-")
    local = {} if remote else {"num_cpus": max(cores, os.cpu_count() or 1), "include_dashboard": False, "_temp_dir": state}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
        yield
    finally:
        ray.shutdown()
        if state is not None:
            shutil.rmtree(state, ignore_errors=True)
