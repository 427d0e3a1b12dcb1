"""A connection to a Ray cluster: the one of `RAY_ADDRESS`, else a local one that ends with the work."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cluster(cores: int) -> Iterator[None]:
    """Connect to the cluster while the block runs; a connection that this process already has is used and kept.

    Args:
        cores: a local cluster counts at least so many, so that on a small machine tasks take turns.
    """
    # no usage statistics, for any user
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # by default Ray's workers have a lower priority than other programs
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
