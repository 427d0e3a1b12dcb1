"""Opens a data set of several archives, or its extracted folder, as one set of members."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import parse_text
from caco_assets.downstream.datasets.completeness import FILE as DECLARATION
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.members import DataAbsentError, FolderStore, ZipStore, open_store

# The largest member of all: an uncompressed aerial mosaic of 21 243 × 15 354 pixels in three bands has 0.98 GB.
MAX_BYTES = 1 << 31
_MAX_TEXT = 64 << 20
_CLUTTER = re.compile(r"(^|/)(__MACOSX/|\.)")


@dataclass(frozen=True)
class Archives:
    """Members by a POSIX name: `<archive without .zip>/<member>` in an archive, the relative path in a folder."""

    root: Path
    stores: Mapping[str, ZipStore | FolderStore]
    """Prefix → store of its members."""
    members: Mapping[str, tuple[str, str]] = field(repr=False)
    """Name → prefix and name inside its store."""

    def names(self) -> tuple[str, ...]:
        """All members, sorted, without hidden files and macOS metadata."""
        return tuple(sorted(self.members))

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes:
        """Bytes of one member; safe to call from several threads.

        Raises:
            UserError: the member is damaged, or has more than `max_bytes`.
        """
        prefix, inner = self.members[name]
        return self.stores[prefix].read(inner, max_bytes)

    def open(self, name: str) -> IO[bytes]:
        """A seekable stream of one member, for reading only its header."""
        prefix, inner = self.members[name]
        store = self.stores[prefix]
        return store.open(inner)

    def text(self, name: str) -> str:
        """A text file, without a byte order mark.

        Raises:
            UserError: as `read`, or of an unknown encoding.
        """
        return parse_text(self.read(name, _MAX_TEXT), f"{self.root}: {name}")

    def version(self, hashes: Hashes = FRESH) -> str:
        """md5 of all bytes, as `Store.version`; for several archives, of their md5s."""
        versions = [store.version(hashes) for _, store in sorted(self.stores.items())]
        return versions[0] if len(versions) == 1 else hashlib.md5("\n".join(versions).encode(), usedforsecurity=False).hexdigest()


def open_archives(path: Path) -> Archives:
    """Open a data set: one `.zip`, a folder with one or more of them directly in it, or a folder of extracted files.

    Raises:
        DataAbsentError: nothing exists at `path`.
        UserError: an archive is damaged, empty or holds unsafe names.
    """
    if not path.exists():
        raise DataAbsentError(f"data={path}: there is nothing there")
    stores: dict[str, ZipStore | FolderStore] = {}
    if path.is_file():
        archives = [path]
    else:
        archives = sorted(file for file in path.glob("*.zip", case_sensitive=False) if not file.name.startswith("."))
        # an extracted folder takes precedence over its archive: using both would list every member twice
        archives = [file for file in archives if not (path / file.stem).is_dir()]
        stores[""] = FolderStore(path)
    for file in archives:
        store = open_store(file, max_bytes=MAX_BYTES)
        if isinstance(store, ZipStore):
            stores[file.stem] = store
    members = {}
    for prefix, store in stores.items():
        for name in store.names():
            # the declaration is not part of the data
            beside = not prefix and "/" not in name and (name == DECLARATION or name.lower().endswith(".zip"))
            if _CLUTTER.search(name) or beside:
                continue
            members[f"{prefix}/{name}" if prefix else name] = (prefix, name)
    if stores.keys() - {""} and not any(prefix == "" for prefix, _ in members.values()):
        stores.pop("", None)
    if not members:
        raise UserError(f"data={path}: there is no file in it; fetch the data set again")
    return Archives(path, stores, members)
