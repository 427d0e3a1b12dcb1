"""Forwards the lines of a metrics file to sinks while another process writes it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from caco_assets.pretraining.training.metrics_log import MetricsSink

# Fast enough for a live curve, at the cost of one stat call.
POLL_S = 1.0


@contextmanager
def tail_metrics(path: Path, sinks: Sequence[MetricsSink], poll_s: float = POLL_S) -> Iterator[None]:
    """While the block runs, send each line of `path` to all sinks, once and in order, from another thread.

    The file may appear later, and may be replaced by one that repeats lines: a training that resumes from its last checkpoint.
    The lines of a resumed training are sent from the first one.

    Raises:
        Exception: an error from a sink; training itself is not disturbed by it.
    """
    lines, ended, errors = _Tail(path), threading.Event(), []

    def tail() -> None:
        try:
            last = False
            while not last:
                last = ended.wait(poll_s)
                for line in lines.new():
                    step = line.pop("step")
                    for sink in sinks:
                        sink.log(step, line)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=tail, name="tail metrics", daemon=True)
    if sinks:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if sinks:
            thread.join()
    if errors:
        raise errors[0]


class _Tail:
    """Complete, unread lines of a growing file."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._inode = path, 0, 0
        # a step's own line precedes the line that closes an epoch with that step
        self._seen = (0, False)

    def new(self) -> list[dict[str, Any]]:
        """Lines added since the last call."""
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if inode != self._inode:
                    self._inode, self._offset = inode, 0
                file.seek(self._offset)
                read = file.read()
        except FileNotFoundError:
            return []
        whole = read[: read.rfind(b"\n") + 1]
        self._offset += len(whole)
        fresh = []
        for line in map(json.loads, whole.splitlines()):
            place = (line["step"], "epoch_loss" in line)
            if place > self._seen:
                self._seen = place
                fresh.append(line)
        return fresh
