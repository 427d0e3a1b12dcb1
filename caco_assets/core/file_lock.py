"""File locks between processes and threads; the kernel releases a lock when its holder ends, even by a crash."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout, lock_descriptor

from caco_assets.core.errors import UserError

logger = logging.getLogger(__name__)


@contextmanager
def file_lock(path: Path, what: str, *, wait_s: float | None = None) -> Iterator[None]:
    """Hold the lock on `path` while the block runs.

    Args:
        path: the lock file. It is created and left in place: removing it would let two processes lock two files of the same name.
        what: the protected resource, for messages.
        wait_s: longest wait for another holder, in seconds; 0: do not wait; None: no limit.

    Raises:
        UserError: another process or thread still holds the lock after `wait_s`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # a soft lock would outlive its process; an instance per call makes threads exclude each other
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if wait_s != 0:
            logger.info(f"{what}: another process holds the lock; waiting{f' up to {wait_s:.0f} s' if wait_s else ''}")
        try:
            lock.acquire(timeout=-1 if wait_s is None else wait_s)
        except Timeout:
            raise UserError(f"{what}: another process holds the lock; wait for it or stop it") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool | None:
    """Whether a process holds a lock on the file, shared or exclusive; None: there is no such file."""
    try:
        with path.open() as file:
            if not lock_descriptor(file.fileno(), blocking=False):
                return True
            # a holder that ends may have removed its file after it was opened here
            return False if os.fstat(file.fileno()).st_nlink else None
    except FileNotFoundError:
        return None


def try_lock(file: IO[str], *, shared: bool = False) -> bool:
    """Take a lock on an open file, or convert the one held, if no other lock conflicts; closing the file releases it.

    filelock has no shared lock that the kernel releases (see `docs/decisions/0023-file-locks.md`).
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
