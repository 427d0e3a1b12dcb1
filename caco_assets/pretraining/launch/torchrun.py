"""Trains in several processes on this machine: `python -m caco_assets.pretraining.launch.torchrun PROCESSES CONFIG`.

Torch's elastic agent starts, monitors and stops them, like `torchrun --standalone`; each is a `launch.worker`. If one
fails, the others are stopped and the cause is logged in one line. Exit status: see `pretraining.train`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from pathlib import Path

from caco_assets.core.errors import UserError
from caco_assets.observability.logs import log_to_stderr
from caco_assets.pretraining.launch.worker import report_outcome
from caco_assets.pretraining.train import USER_ERROR
from caco_assets.pretraining.training.run_config import read_config
from caco_assets.pretraining.training.run_state import DONE, forget_outcome, read_outcome
from caco_assets.pretraining.training.stop_request import stop_requests

# under `python -m`, __name__ is "__main__", which is outside of the package's logger
logger = logging.getLogger(__spec__.name)

WORKER = "caco_assets.pretraining.launch.worker"
# Time to finish the current step and write a checkpoint of the largest networks, before the processes are killed.
_TIME_TO_STOP_S = 300
_USAGE = "usage: python -m caco_assets.pretraining.launch.torchrun PROCESSES CONFIG"


def main(arguments: list[str]) -> int:
    """Train the CONFIG file in the given number of processes and return the exit status."""
    log_to_stderr()
    if len(arguments) != 2 or not arguments[0].isdecimal() or int(arguments[0]) < 1:
        logger.info(_USAGE)
        return USER_ERROR
    processes, file = int(arguments[0]), Path(arguments[1])
    try:
        target = read_config(file).target
    except UserError as error:
        logger.info(f"pretrain: {error}")
        return USER_ERROR
    # until the agent handles signals itself: its import takes seconds
    with stop_requests() as stop:
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    if stop.signum is not None:
        return 128 + stop.signum
    if read_outcome(target)["status"] != DONE:
        forget_outcome(target)
    try:
        start(processes, file)
    except SignalException as stopped:
        return 128 + stopped.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return report_outcome(target, ended(rank, processes, failure.exitcode))
    return 0


def start(processes: int, config: Path) -> None:
    """Run the processes to completion; they communicate over the loopback interface only.

    Raises:
        ChildFailedError: a process failed, and the others were stopped.
        SignalException: a signal was forwarded to all processes, and they have ended.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # `report_outcome` logs in one line why a process failed or stopped; the agent's own log is silenced
    agent = logging.getLogger("torch.distributed")
    agent.handlers[:] = [logging.NullHandler()]
    agent.propagate = False
    # as torchrun does: otherwise each process would use all cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(len(os.sched_getaffinity(0)) // processes, 1)))
    with tempfile.TemporaryDirectory(prefix="caco-torchrun-") as logs:
        launch = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            signals_to_handle="SIGTERM,SIGINT",
            shutdown_timeout=_TIME_TO_STOP_S,
        )
        elastic_launch(launch, sys.executable)("-m", WORKER, str(config))


def ended(rank: int, processes: int, status: int) -> str:
    """How process `rank` ended; a negative `status` is the number of the signal that killed it."""
    cause = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    hint = ", most often because memory ran out" if status == -signal.SIGKILL else ""
    return f"process {rank + 1} of {processes} {cause}{hint}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
