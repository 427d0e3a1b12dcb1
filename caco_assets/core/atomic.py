"""Atomic file writes: readers see the old or the new file, even after a crash."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

# Writers of the same file wait only milliseconds for each other.
_POLL_S = 0.01


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a scratch file to write to, and move it to `path` when the block ends without an error.

    One writer of a path at a time; others wait. The next writer overwrites what a killed one left: the name of the scratch file
    follows from `path`, and the kernel releases the lock of a dead process.

    Args:
        path: the file; its folder is created. The scratch file beside it, `.<name>.tmp`, exists and is empty: write to it, do not
            replace it.
    """
    with _scratch([path]) as (files, publish):
        yield files[0]
        publish()


def make_missing(paths: Sequence[Path], make: Callable[..., None]) -> None:
    """Make files that belong together, unless all exist. Concurrent callers wait for the first and reuse its result.

    Args:
        paths: the files.
        make: writes them; it is given one scratch file for each (see `replacing`).
    """
    if all(path.exists() for path in paths):
        return
    with _scratch(paths) as (files, publish):
        if not all(path.exists() for path in paths):
            make(*files)
            publish()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a small file; readers see the old content or the new one."""
    with replacing(path) as scratch:
        scratch.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def _scratch(paths: Sequence[Path]) -> Iterator[tuple[list[Path], Callable[[], None]]]:
    """Locked scratch files, and a function that moves them into place; those not moved are removed."""
    with ExitStack() as held:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        files = [path.with_name(f".{path.name}.tmp") for path in paths]
        mine = [(held.enter_context(_open_locked(file)), file, path) for file, path in zip(files, paths, strict=True)]

        def publish() -> None:
            while mine:
                stream, file, path = mine[0]
                os.fsync(stream.fileno())
                file.replace(path)
                # a file of this name now belongs to the next writer
                del mine[0]

        try:
            yield files, publish
        finally:
            for _, file, _ in mine:
                file.unlink(missing_ok=True)


def _open_locked(scratch: Path) -> BinaryIO:
    """The file, empty, open and locked; closing it releases the lock."""
    while True:
        stream = scratch.open("ab")
        try:
            lock_descriptor(stream.fileno(), poll_interval=_POLL_S)
            # the previous writer may have moved the opened file into place: the lock is then on the product
            if scratch.exists() and os.path.samestat(os.fstat(stream.fileno()), scratch.stat()):
                stream.truncate(0)
                return stream
        except FileNotFoundError:
            pass
        except BaseException:
            stream.close()
            raise
        stream.close()
