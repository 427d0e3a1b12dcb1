"""Files that a reader sees old or new, never in part, whoever dies while writing them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
    with _scratch([path]) as (files, publish):
        yield files[0]
        publish()


def make_missing(paths: Sequence[Path], make: Callable[..., None]) -> None:
    """Make files that belong together, unless all are there; who comes while another makes them waits, and makes nothing.

    Args:
        paths: the files.
        make: is given a scratch file for each (see `replacing`), and writes them.
    """
    if all(path.exists() for path in paths):
        return
    with _scratch(paths) as (files, publish):
        if not all(path.exists() for path in paths):
            make(*files)
            publish()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a small file so that a reader sees the old content or the new one, never a part."""
    with replacing(path) as scratch:
        scratch.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def _scratch(paths: Sequence[Path]) -> Iterator[tuple[list[Path], Callable[[], None]]]:
    """Locked scratch files, and what puts them in their places; those that were not put there are removed."""
    with ExitStack() as held:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        files = [path.with_name(f".{path.name}.tmp") for path in paths]
        mine = [(held.enter_context(_alone(file)), file, path) for file, path in zip(files, paths, strict=True)]

        def publish() -> None:
            while mine:
                stream, file, path = mine[0]
                os.fsync(stream.fileno())
                file.replace(path)
                # once it has moved, a file of this name is the next writer's
                del mine[0]

        try:
            yield files, publish
        finally:
            for _, file, _ in mine:
                file.unlink(missing_ok=True)


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
