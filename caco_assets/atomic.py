"""Files that a reader sees old or new, never in part, whoever dies while writing them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file to write to, and put it in the place of `path` when the block ends well.

    One writer of a path at a time; another waits here for it. What a killed one left is written over by the next: the name of the
    scratch file is that of `path`, and the kernel lets go of a dead process's lock.

    Args:
        path: the file; its folder is made. The scratch file beside it, `.<name>.tmp`, exists and is empty: write to it, do not
            replace it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    with _alone(scratch) as stream:
        try:
            yield scratch
            os.fsync(stream.fileno())
            scratch.replace(path)
        except BaseException:
            # ours as long as the lock is; once it has moved, a file of this name is the next writer's
            scratch.unlink(missing_ok=True)
            raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a small file so that a reader sees the old content or the new one, never a part."""
    with replacing(path) as scratch:
        scratch.write_bytes(data.encode() if isinstance(data, str) else data)


def _alone(scratch: Path) -> BinaryIO:
    """The file, empty, open and locked; closing it unlocks it."""
    while True:
        stream = scratch.open("ab")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # the writer before may have moved the file that was opened to where it belongs
            if scratch.exists() and os.path.samestat(os.fstat(stream.fileno()), scratch.stat()):
                stream.truncate(0)
                return stream
        except FileNotFoundError:
            pass
        except BaseException:
            stream.close()
            raise
        stream.close()
