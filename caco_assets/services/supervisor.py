"""Keeps child processes running: one that ends is started again, after a pause that grows while it keeps ending."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""The pause before a restart doubles from the first to the longest."""
STEADY_S = 60.0
"""A process that has run this long starts again after the first pause."""
STOP_S = 20.0
"""Grace between SIGTERM and SIGKILL."""
_POLL_S = 0.1


@dataclass
class _Child:
    command: Sequence[str]
    keep_workers: bool
    process: subprocess.Popen[bytes]
    started: float
    failures: int = 0
    """Ends in a row, each soon after its start."""
    due: float | None = None
    """When it is started again; None: it runs."""


@dataclass
class Supervisor:
    """The children of one process."""

    logs: Path
    """Folder of `NAME.log`."""
    folder: Path
    """Working directory of the children."""
    environment: Mapping[str, str]
    inherited: tuple[int, ...] = ()
    """File descriptors that the children keep open."""
    _children: dict[str, _Child] = field(default_factory=dict)
    _left: set[int] = field(default_factory=set)
    """Process groups whose leader has ended but whose workers were left running."""

    def start(self, name: str, command: Sequence[str], *, keep_workers: bool = False) -> None:
        """Start a child with an empty log.

        Args:
            name: of the child and its log.
            command: its command line.
            keep_workers: its own children are left running when it dies; else they are killed before it is started again.
        """
        self.log(name).unlink(missing_ok=True)
        self._children[name] = _Child(command, keep_workers, self._popen(name, command), time.monotonic())

    def log(self, name: str) -> Path:
        """What a child prints."""
        return self.logs / f"{name}.log"

    def status(self, name: str) -> int | None:
        """Exit status of a child; None: it runs."""
        return self._children[name].process.poll()

    def processes(self) -> dict[str, int]:
        """Name → process number."""
        return {name: child.process.pid for name, child in self._children.items()}

    def restart_ended(self) -> list[str]:
        """Start children whose pause is over and notice those that have ended since; returns the names of the started ones."""
        now, started = time.monotonic(), []
        self._left = {group for group in self._left if _signal(group, 0)}
        for name, child in self._children.items():
            if child.due is None and (status := child.process.poll()) is not None:
                child.failures = 1 if now - child.started >= STEADY_S else child.failures + 1
                pause = min(FIRST_PAUSE_S * 2 ** (child.failures - 1), LONGEST_PAUSE_S)
                child.due = now + pause
                logger.warning(
                    f"{name}: {_ended(status)}; it is started again in {pause:g} s, the others run on; see {self.log(name)}"
                )
                if child.keep_workers:
                    self._left.add(child.process.pid)
                else:
                    _signal(child.process.pid, signal.SIGKILL)
            elif child.due is not None and now >= child.due:
                child.process, child.started, child.due = self._popen(name, child.command), now, None
                logger.info(f"{name}: started again (process {child.process.pid})")
                started.append(name)
        return started

    def stop(self) -> None:
        """End all children and their workers: SIGTERM, and SIGKILL for what is left after `STOP_S`."""
        groups = {child.process.pid for child in self._children.values()} | self._left
        alive = {group for group in groups if _signal(group, signal.SIGTERM)}
        deadline = time.monotonic() + STOP_S
        while alive and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            for child in self._children.values():
                child.process.poll()
            alive = {group for group in alive if _signal(group, 0)}
        for group in alive:
            _signal(group, signal.SIGKILL)
        for child in self._children.values():
            child.process.wait()

    def _popen(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            # a separate session, so that Ctrl-C reaches only this process and children are stopped in order
            return subprocess.Popen(
                command, cwd=self.folder, env=dict(self.environment), stdout=log, stderr=log, stdin=DEVNULL,
                start_new_session=True, pass_fds=self.inherited,
            )  # fmt: skip


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    name = str(-status)
    with suppress(ValueError):
        name = signal.Signals(-status).name
    return f"was ended by {name}"


def _signal(group: int, number: int) -> bool:
    """Send a signal to a child and its workers, which are one process group; False: none of them is left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # macOS answers so for a group of zombies
        return False
    return True
