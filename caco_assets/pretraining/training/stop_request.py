"""Stop requests: after a signal, training writes a checkpoint at the next step and stops."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from caco_assets.core.processes import is_alive

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# One Ctrl-C may arrive twice: from the terminal, and forwarded by the parent process.
_PATIENCE = 3
_WATCH_EVERY_S = 1.0


class Stopped(KeyboardInterrupt):
    """Training has stopped on request after writing a checkpoint; the same command resumes it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def status(self) -> int:
        """Exit status for the signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signum


class StopRequest:
    """A request to stop: the number of its signal, or none."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def ask(self, signum: int = signal.SIGTERM) -> None:
        """Request a stop; the first signal is kept."""
        self.signum = self.signum or signum

    def answer(self) -> None:
        """Stop, after a checkpoint is written.

        Raises:
            Stopped: if a stop was requested.
        """
        if self.signum is not None:
            raise Stopped(self.signum)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """While the block runs, SIGINT and SIGTERM only request a stop; the third signal interrupts at once.

    Outside the main thread, where signals cannot be caught, no stop is ever requested.
    """
    request, count = StopRequest(), 0

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        request.ask(signum)
        if count >= _PATIENCE:
            signal.default_int_handler(signum, frame)

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {signum: signal.signal(signum, ask) for signum in SIGNALS}
    try:
        yield request
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def this_process() -> tuple[str, int]:
    """(machine, process id) of the process that starts a training, for `stop_with`."""
    return platform.node(), os.getpid()


def stop_with(process: tuple[str, int], request: StopRequest) -> None:
    """Request a stop when another process of this machine has ended: after a kill it cannot forward signals."""
    machine, pid = process
    if machine != platform.node():
        return

    def watch() -> None:
        while is_alive(pid):
            time.sleep(_WATCH_EVERY_S)
        request.ask()

    threading.Thread(target=watch, name="watch the starter", daemon=True).start()
