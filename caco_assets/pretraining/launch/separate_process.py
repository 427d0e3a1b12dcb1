"""Runs a training in a separate process: starts it, follows its metrics, forwards signals, and returns its outcome."""

from __future__ import annotations

import logging
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import StorageError, UserError
from caco_assets.core.products import Facts
from caco_assets.pretraining.launch.launchers import command
from caco_assets.pretraining.launch.metrics_tail import tail_metrics
from caco_assets.pretraining.train import USER_ERROR
from caco_assets.pretraining.training.metrics_log import METRICS, MetricsSink
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.pretraining.training.run_state import DONE, ERROR, STOPPED, forget_outcome, read_outcome, sidecar_file
from caco_assets.pretraining.training.stop_request import SIGNALS, Stopped

logger = logging.getLogger(__name__)

Start = Callable[[list[str]], int]
"""Runs a command line to completion, forwards stop requests to it, and returns its exit status (negative: a signal number)."""


def pretrain_in_subprocess(config: RunConfig, sinks: Sequence[MetricsSink] = (), start: Start | None = None) -> Facts:
    """`make_encoder` in one or several separate processes, according to `config.pretraining.launcher`.

    Args:
        config: what to train; written beside `config.target` for the process to read.
        sinks: further receivers of the metrics, during training.
        start: default: `run_child`.

    Returns:
        Facts of the product.

    Raises:
        UserError: reported by the process, or it was killed.
        Stopped: on request, with a checkpoint.
    """
    file = sidecar_file(config.target, "config.json")
    write_atomic(file, config.model_dump_json(indent=1) + "\n")
    if read_outcome(config.target)["status"] != DONE:
        forget_outcome(config.target)
    with tail_metrics(config.target / METRICS, sinks):
        status = (start or run_child)(command(file, config.pretraining))
    outcome = read_outcome(config.target)
    if status == 0 and outcome["status"] == DONE:
        return outcome["facts"]
    if outcome["status"] == ERROR:
        raise UserError(outcome["message"])
    if outcome["status"] == STOPPED:
        raise Stopped(outcome["signum"])
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        raise UserError(
            f"pretraining.batch_size={config.pretraining.batch_size}: the training process was killed, most often because memory "
            "ran out: lower it, or pretraining.image_size; or run the same command again, it resumes from the last checkpoint"
        )
    if status == USER_ERROR:
        raise StorageError(
            f"{config.target}: the training process could not write why it stopped, most often because the disk is full; its last "
            "log line says it; free some space and run the same command again, it continues"
        )
    raise RuntimeError(f"the training process ended with status {status}; see its last log lines")


def run_child(arguments: list[str]) -> int:
    """A `Start` that runs a child of this process, logs its output and forwards SIGINT and SIGTERM to it."""
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process, _forwarded_signals(process):
        for line in process.stderr or ():
            logger.info(line.rstrip("\n"))
        return process.wait()


@contextmanager
def _forwarded_signals(process: subprocess.Popen[str]) -> Iterator[None]:
    def forward(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signature of signal handlers
        process.send_signal(signum)

    before = {signum: signal.signal(signum, forward) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
