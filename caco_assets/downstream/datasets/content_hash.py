"""The content hash of a data set, cached until one of its files changes.

The hash covers every byte. The published BigEarthNet has 66 GB, which takes minutes to read, so the hash is cached with a
signature of the files (names, sizes, mtime and ctime). If the signature differs, all bytes are read again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_object
from caco_assets.core.products import content_hash
from caco_assets.core.progress import Progress

logger = logging.getLogger(__name__)

_MB = 1 << 20


@dataclass(frozen=True)
class Hashes:
    """A cache of content hashes."""

    folder: Path | None = None
    """A cache folder that can be deleted at any time; None: no cache."""

    def of(self, path: Path) -> str:
        """The hash that DVC gives a file or folder (`products.content_hash`)."""
        if self.folder is None:
            return content_hash(path)
        where = path.absolute()
        file = self.folder / f"{hashlib.sha256(os.fsencode(where)).hexdigest()[:32]}.json"
        signature, size = _signature(where)
        if (known := _known(file)) is not None and known[0] == signature:
            return known[1]
        progress, done = Progress(f"read all of {path.name} for its hash", size // _MB, "MB"), 0

        def advance(file: Path) -> None:
            nonlocal done
            before, done = done, done + file.stat().st_size
            progress.advance(done // _MB - before // _MB)

        found = content_hash(where, advance)
        # a file that changed while being read matches neither signature
        if _signature(where)[0] == signature:
            write_atomic(file, json.dumps({"path": where.as_posix(), "signature": signature, "hash": found}, indent=1) + "\n")
        return found


FRESH = Hashes()
"""No cache."""


def _known(file: Path) -> tuple[str, str] | None:
    """Signature and hash in a file of the cache; None: there is none, or it is damaged, and the bytes are read again."""
    if not file.exists():
        return None
    try:
        fields = read_object(file)
    except UserError as error:
        logger.warning(f"cached hash not used: {error}")
        return None
    signature, found = fields.get("signature"), fields.get("hash")
    return (signature, found) if isinstance(signature, str) and isinstance(found, str) else None


def _signature(path: Path) -> tuple[str, int]:
    """sha256 over name, size and times of every file, and the total size; symbolic links to files are followed."""
    digest, total = hashlib.sha256(), 0
    for name, status in _files(path):
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode(errors="surrogateescape"))
        total += status.st_size
    return digest.hexdigest(), total


def _files(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    if path.is_file():
        yield path.name, path.stat()
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = os.path.join(folder, name)  # noqa: PTH118 - millions of files: a Path each would double the time
            if os.path.isfile(file):  # noqa: PTH113
                yield os.path.relpath(file, path), os.stat(file)  # noqa: PTH116
