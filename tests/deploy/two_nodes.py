"""A Ray cluster of two nodes on this machine, in a process of its own: prints its address, then does what its input says.

`lose` kills the second node with all its processes, as a machine that is taken back; the end of the input ends the cluster.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_agent_register_timeout_ms": "300000", "RAY_prestart_worker_first_driver": "0"}
os.environ |= {"RAY_worker_niceness": "0"}
# Ray gives a node half a minute, most of which its agents take for their imports where other programs are at work
TRIES = 5


def main() -> None:
    state = tempfile.mkdtemp(prefix="caco-nodes-")
    # not the folder that every cluster of this machine shares
    os.environ["RAY_TMPDIR"] = state
    (Path(state) / "ray").mkdir()
    from ray.cluster_utils import Cluster

    # each node gets so little memory for objects: only records pass through it
    size = {"num_cpus": int(sys.argv[1]), "object_store_memory": 80 << 20}
    try:
        cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False}))
        second = patiently(lambda: cluster.add_node(**size))
        cluster.wait_for_nodes()
        tell(cluster.address)
        for line in sys.stdin:
            if line.strip() == "lose":
                cluster.remove_node(second, allow_graceful=False)
                tell("lost")
        cluster.shutdown()
    finally:
        shutil.rmtree(state, ignore_errors=True)


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def patiently[T](start: Callable[[], T]) -> T:
    """Try again where a node did not come up in Ray's time."""
    for last in (*[False] * (TRIES - 1), True):
        try:
            return start()
        except Exception as error:
            if last or "timed out during startup" not in str(error):
                raise
    raise AssertionError


if __name__ == "__main__":
    main()
