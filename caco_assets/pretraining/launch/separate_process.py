"""A training in a process of its own: started, followed, stopped together with its starter, and what became of it."""

from __future__ import annotations

import logging
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts
from caco_assets.pretraining.launch.launchers import command
from caco_assets.pretraining.launch.metrics_tail import following
from caco_assets.pretraining.training.metrics_log import METRICS, MetricsSink
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.pretraining.training.run_state import DONE, ERROR, STOPPED, beside, forget_outcome, read_outcome
from caco_assets.pretraining.training.stop_request import SIGNALS, Stopped

logger = logging.getLogger(__name__)

Start = Callable[[list[str]], int]
"""Runs a command line until it ends, hands requests to stop on to it, and gives its exit status (negative: a signal's number)."""


def make_encoder_apart(config: RunConfig, sinks: Sequence[MetricsSink] = (), start: Start | None = None) -> Facts:
    """`run.make_encoder` in a process of its own, or in several: whatever `config.pretraining.launcher` starts.

    Args:
        config: what to train; written beside `config.target` for the process to read.
        sinks: further takers of the figures, which arrive while they are made.
        start: default: a child of this process, whose lines are logged.

    Returns:
        Facts of the product.

    Raises:
        UserError: as the process said it, or it was killed.
        Stopped: on request, with a checkpoint.
    """
    file = beside(config.target, "config.json")
    write_atomic(file, config.model_dump_json(indent=1) + "\n")
    if read_outcome(config.target)["status"] != DONE:
        forget_outcome(config.target)
    with following(config.target / METRICS, sinks):
        status = (start or child())(command(file, config.pretraining))
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
            "ran out: lower it, or pretraining.image_size; or run the same command again, it goes on from the last checkpoint"
        )
    raise RuntimeError(f"the training process ended with status {status}; what it said before says why")


def child() -> Start:
    """A child of this process; SIGINT and SIGTERM are handed on to it."""

    def start(arguments: list[str]) -> int:
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process, _handed_on(process):
            for line in process.stderr or ():
                logger.info(line.rstrip("\n"))
            return process.wait()

    return start


@contextmanager
def _handed_on(process: subprocess.Popen[str]) -> Iterator[None]:
    def hand_on(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        process.send_signal(signum)

    before = {signum: signal.signal(signum, hand_on) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
