"""Reads the members of a data set from its zip archive or its folder, without unpacking to disk."""

from __future__ import annotations

import lzma
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from caco_assets.core.errors import UserError, one_line
from caco_assets.core.foreign_files import read_bytes
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes

# what zipfile raises for damaged archives
_BROKEN = (zipfile.BadZipFile, OSError, ValueError, IndexError, OverflowError, struct.error, zlib.error, lzma.LZMAError)


class DataAbsentError(UserError):
    """The data of a task is missing: an optional task is reported as not measured, any other is an error."""


class Store(Protocol):
    """Files by relative POSIX name."""

    @property
    def root(self) -> Path:
        """The archive or folder, for error messages."""
        ...

    def names(self) -> tuple[str, ...]:
        """All member files, sorted."""
        ...

    def read(self, name: str, max_bytes: int | None = None) -> bytes:
        """Bytes of one member, at most `max_bytes` or the store's own limit; safe to call from several threads."""
        ...

    def version(self, hashes: Hashes = FRESH) -> str:
        """md5 of all bytes, as DVC computes it."""
        ...


@dataclass(frozen=True)
class ZipStore:
    """The members of a zip archive."""

    root: Path
    archive: zipfile.ZipFile
    members: Mapping[str, zipfile.ZipInfo]
    max_bytes: int

    def names(self) -> tuple[str, ...]:
        """All member files, sorted."""
        return tuple(sorted(self.members))

    def read(self, name: str, max_bytes: int | None = None) -> bytes:
        """Bytes of one member.

        Raises:
            UserError: the member is damaged, or too large for a file of this data set.
        """
        info, limit = self.members[name], min(max_bytes or self.max_bytes, self.max_bytes)
        if info.file_size > limit:
            raise UserError(f"{self.root}: {name} unpacks to {info.file_size} bytes, at most {limit} are read; fetch it again")
        with self._errors(name):
            return self.archive.read(info)

    def open(self, name: str) -> IO[bytes]:
        """A seekable stream of one member.

        Raises:
            UserError: the member is damaged.
        """
        with self._errors(name):
            return self.archive.open(self.members[name])

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except NotImplementedError as error:
            raise UserError(
                f"{self.root}: {name} is stored in a way that is not read ({one_line(error, 120)}); unpack the archive here"
            ) from error
        # RuntimeError: encrypted
        except (*_BROKEN, EOFError, RuntimeError) as error:
            raise UserError(
                f"{self.root}: {name} cannot be read from the archive ({one_line(error, 120)}); fetch the archive again"
            ) from error

    def version(self, hashes: Hashes = FRESH) -> str:
        """md5 of the archive."""
        return hashes.of(self.root)


@dataclass(frozen=True)
class FolderStore:
    """The files below a folder."""

    root: Path
    max_bytes: int = 1 << 31

    def names(self) -> tuple[str, ...]:
        """All files, sorted."""
        return tuple(sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()))

    def read(self, name: str, max_bytes: int | None = None) -> bytes:
        """Bytes of one file.

        Raises:
            UserError: it cannot be read, or is too large for a file of this data set.
        """
        return read_bytes(self.root / name, max_bytes=min(max_bytes or self.max_bytes, self.max_bytes))

    def open(self, name: str) -> IO[bytes]:
        """A stream of one file.

        Raises:
            UserError: it cannot be read.
        """
        try:
            return (self.root / name).open("rb")
        except OSError as error:
            raise UserError(f"{self.root / name}: not readable ({one_line(error, 120)}); fetch it again") from error

    def version(self, hashes: Hashes = FRESH) -> str:
        """md5 of the sorted listing of the files' md5."""
        return hashes.of(self.root)


def open_store(path: Path, *, max_bytes: int) -> Store:
    """Open an archive, or a folder, or the one archive that a folder holds.

    Args:
        path: a `.zip`, a folder with one `.zip` directly in it, or a folder of extracted files.
        max_bytes: maximum size of an unpacked member (a guard against zip bombs).

    Raises:
        DataAbsentError: nothing exists at `path`.
        UserError: the archive is damaged, empty, holds unsafe names, or the folder holds several archives.
    """
    if not path.exists():
        raise DataAbsentError(f"data={path}: there is nothing there")
    if path.is_dir():
        archives = sorted(path.glob("*.zip", case_sensitive=False))
        if len(archives) > 1:
            found = ", ".join(archive.name for archive in archives)
            raise UserError(f"data={path}: several archives ({found}); name the one to read")
        if not archives:
            return FolderStore(path, max_bytes)
        path = archives[0]
    try:
        archive = zipfile.ZipFile(path)
    except _BROKEN as error:
        raise UserError(f"data={path}: not readable as a zip archive ({error}); fetch it again") from error
    members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    if not members:
        raise UserError(f"data={path}: the archive is empty; fetch it again")
    for name in members:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or ".." in parts:
            raise UserError(f"data={path}: member {name!r} points outside the archive; do not use this file, fetch it again")
    store = ZipStore(path, archive, members, max_bytes)
    # close explicitly: in a reference cycle the garbage collector would find the open file first and warn
    weakref.finalize(store, archive.close)
    return store
