"""The tar of a shard: in the shard's folder, or in an object store with a pointer to it in the folder.

A stored tar is named by its content (`ROOT/shard=0007/MD5.tar`), so none is ever overwritten: a pointer that DVC has kept is
good for as long as the object is. It is written as a stream and read by ranges; index and quarantine stay beside the pointer.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from caco_assets.core import object_store
from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError

TAR, POINTER = "chips.tar", "chips.tar.json"
BLOCK = 8 << 20
"""Bytes per request when all of a stored tar is read: large compared with the latency, small in memory."""
AHEAD = 4
"""Concurrent requests of this kind."""
_GAP = 2 * tarfile.BLOCKSIZE
"""Maximum bytes between two members of a tar: the padding of one and the header of the next."""


@dataclass(frozen=True)
class Pointer:
    """A tar in an object store."""

    address: str
    bytes: int
    md5: str


def pointer(shard: Path) -> Pointer | None:
    """The stored tar of a shard; None if it is in the folder or is missing."""
    file = shard / POINTER
    if (shard / TAR).exists() or not file.exists():
        return None
    try:
        return Pointer(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: not readable; `caco archive verify --repair`, then `caco ingest`, makes it again") from error


def tar_size(shard: Path) -> int:
    """Bytes of a shard's tar."""
    far = pointer(shard)
    return (shard / TAR).stat().st_size if far is None else far.bytes


def has_tar(shard: Path) -> bool:
    """Whether a shard has a tar or a pointer to one."""
    return (shard / TAR).is_file() or (shard / POINTER).is_file()


def open_tar(shard: Path) -> IO[bytes]:
    """A shard's tar, seekable; in a store, each `read` is a request for that many bytes."""
    far = pointer(shard)
    return (shard / TAR).open("rb") if far is None else _Stored(far)  # pyright: ignore[reportReturnType]


def open_whole(shard: Path) -> IO[bytes]:
    """A shard's tar, to read from one end to the other; in a store, by large ranges."""
    far = pointer(shard)
    return (shard / TAR).open("rb") if far is None else io.BufferedReader(_Stored(far), BLOCK)


def read_members(shard: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """The GeoTIFFs of rows of a shard's index, in their order; chips of a stored tar are prefetched, neighbors in one request."""
    far = pointer(shard)
    if far is None:
        with (shard / TAR).open("rb") as stream:
            for row in rows:
                stream.seek(row["offset"])
                yield stream.read(row["length"])
        return
    runs = _runs(rows)
    with ThreadPoolExecutor(AHEAD) as pool:
        under_way: deque[tuple[list[tuple[int, int]], Future[bytes]]] = deque()
        for run in runs:
            start, (last, length) = run[0][0], run[-1]
            under_way.append((run, pool.submit(read_stored, far, start, last + length - start)))
            if len(under_way) > AHEAD:
                yield from _parts(*under_way.popleft())
        while under_way:
            yield from _parts(*under_way.popleft())


def read_stored(far: Pointer, offset: int, length: int) -> bytes:
    """Some bytes of a stored tar.

    Raises:
        UserError: the store does not answer, or the object is missing.
    """
    try:
        return object_store.read_range(far.address, offset, length)
    except FileNotFoundError as error:
        raise UserError(
            f"{far.address}: not in the store, though the archive points to it; bring it back from a backup, or "
            "`caco archive verify --repair` and `caco ingest` make it again"
        ) from error


def store_tar[T](shard: Path, root: str, pack: Callable[[IO[bytes]], T]) -> T:
    """Write a shard's tar into a store, and the pointer to it into the shard's folder; an existing object is not sent again.

    Args:
        shard: folder of the shard, named by it or a partial one of it.
        root: address of the shard's folder in the store.
        pack: writes the tar to a stream, and the same bytes when it is called again; called first to learn their md5.

    Raises:
        UserError: the store rejects it; no partial object appears under its name.
    """
    sink = _Sink()
    result = pack(sink)  # pyright: ignore[reportArgumentType]
    far = Pointer(object_store.join(root, f"{sink.md5}.tar"), sink.tell(), sink.md5)
    if object_store.size(far.address) != far.bytes:
        with object_store.Upload(far.address) as upload:
            result = pack(upload)  # pyright: ignore[reportArgumentType]
            if upload.md5 != far.md5:
                raise UserError(f"{far.address}: its chips changed while they were sent; run the same command again")
    write_atomic(shard / POINTER, json.dumps(asdict(far), indent=1) + "\n")
    return result


def send_tar(shard: Path, root: str) -> None:
    """Move a tar from a shard's folder into a store; see `store_tar`."""

    def pack(stream: IO[bytes]) -> None:
        with (shard / TAR).open("rb") as source:
            shutil.copyfileobj(source, stream, BLOCK)

    store_tar(shard, root, pack)
    (shard / TAR).unlink()


def _runs(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[tuple[int, int]]]:
    """(Offset, length) of neighbors that one request fetches: gaps as in a tar, no more than `BLOCK`."""
    run: list[tuple[int, int]] = []
    for row in rows:
        offset, length = row["offset"], row["length"]
        near = run and 0 <= offset - sum(run[-1]) <= _GAP and offset + length - run[0][0] <= BLOCK
        if run and not near:
            yield run
            run = []
        run.append((offset, length))
    if run:
        yield run


def _parts(run: list[tuple[int, int]], coming: Future[bytes]) -> Iterator[bytes]:
    data, start = coming.result(), run[0][0]
    for offset, length in run:
        yield data[offset - start : offset - start + length]


class _Stored(io.RawIOBase):
    """A stored tar as a stream; it has its own position, so each thread opens one."""

    def __init__(self, far: Pointer) -> None:
        self._far, self._at = far, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._far.bytes}[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(self._far.bytes - self._at, 0))
        data = read_stored(self._far, self._at, wanted) if wanted else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Sink:
    """Counts and hashes what is written, and stores nothing."""

    def __init__(self) -> None:
        self._md5, self._size = hashlib.md5(usedforsecurity=False), 0

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    def tell(self) -> int:
        return self._size

    def write(self, data: bytes) -> int:
        self._md5.update(data)
        self._size += len(data)
        return len(data)
