"""One process at a time: a lock on a file that goes with its process, however that ends."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


@contextmanager
def alone(file: Path, what: str) -> Iterator[None]:
    """Wait until no other process (or thread) holds the lock on `file`, and hold it while the block runs.

    Args:
        file: created, and left there: removing it would let two processes lock two files of the same name.
        what: is worked on, for the message.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info(f"{what}: another process is at it; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
