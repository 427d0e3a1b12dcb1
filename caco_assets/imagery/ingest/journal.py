"""The ingest journal of a shard: all outcomes so far and the bytes of the chips, on disk.

After an interruption at any point, both files are read up to the last complete entry and the work resumes from there. An entry
counts when its own checksum and that of its chip match: after a power loss either file may lack its tail.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

CHIPS, JOURNAL = "chips.spool", "journal.jsonl"
SYNC_S = 5.0
"""Seconds of work that a power loss may cost (a killed process loses less: the system still has its writes)."""

Key = tuple[str, str]
"""Place and item: an item is tried at most once for a place."""


@dataclass(frozen=True)
class JournalEntry:
    """The outcome of one attempt."""

    reason: str | None
    """None: there is a chip."""
    detail: str
    clear_fraction: float | None
    offset: int = 0
    """Of the chip's bytes in `chips.spool`."""
    length: int = 0


UNTRIED = JournalEntry(None, "", None)
"""Before the first attempt."""


class IngestJournal:
    """Append-only; one process and one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Open or create; reads the entries of an interrupted run and truncates an incomplete tail."""
        folder.mkdir(parents=True, exist_ok=True)
        self.entries: dict[Key, JournalEntry] = {}
        self._chips = (folder / CHIPS).open("a+b")
        self._journal = (folder / JOURNAL).open("a+b")
        self._end = self._recover()
        self.resumed = len(self.entries)
        self._synced = time.monotonic()
        self._helper = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._helper.shutdown()
        self._chips.close()
        self._journal.close()

    def add(self, key: Key, reason: str | None, detail: str, clear_fraction: float | None, data: bytes) -> JournalEntry:
        """Store an outcome, and the chip's bytes if there is one."""
        entry = JournalEntry(reason, detail, clear_fraction, self._end, len(data))
        self._chips.write(data)
        self._end += len(data)
        self._journal.write(_line(key, entry, zlib.crc32(data)))
        self.entries[key] = entry
        # the chip first: an entry whose bytes are missing would be cut off
        self._chips.flush()
        self._journal.flush()
        if time.monotonic() - self._synced > SYNC_S:
            self._synced = time.monotonic()
            # a slow disk must not block reading
            self._helper.submit(self._sync)
        return entry

    def read(self, entry: JournalEntry) -> bytes:
        """The bytes of a chip."""
        self._chips.seek(entry.offset)
        return self._chips.read(entry.length)

    def _sync(self) -> None:
        """Make the added entries survive a power loss."""
        for stream in (self._chips, self._journal):
            os.fsync(stream.fileno())

    def _recover(self) -> int:
        """Read the entries; returns the end of the last complete chip."""
        self._journal.seek(0)
        self._chips.seek(0)
        complete = end = 0
        for key, entry, checksum, size in _lines(self._journal.read()):
            data = self._chips.read(entry.length)
            if entry.offset != end or len(data) != entry.length or zlib.crc32(data) != checksum:
                break
            self.entries[key] = entry
            complete, end = complete + size, end + entry.length
        self._journal.truncate(complete)
        self._chips.truncate(end)
        self._journal.seek(complete)
        self._chips.seek(end)
        return end


def _line(key: Key, entry: JournalEntry, checksum: int) -> bytes:
    fields = [*key, entry.reason, entry.detail, entry.clear_fraction, entry.offset, entry.length, checksum]
    text = json.dumps(fields, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _lines(content: bytes) -> Iterator[tuple[Key, JournalEntry, int, int]]:
    """Key, entry, checksum of the chip and bytes of the line, up to the first incomplete line."""
    for line in content.splitlines(keepends=True):
        checksum, _, text = line.removesuffix(b"\n").partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
            return
        fields: list[Any] = json.loads(text)
        yield (fields[0], fields[1]), JournalEntry(*fields[2:7]), fields[7], len(line)
