"""The exception for bad input, one-line texts of other errors, and the storage faults among them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """An error that the user can fix. The command line prints only its text and exits with 2; finished work is kept."""


_AGAIN = "run the same command again, it continues; finished work is kept"
_ELSEWHERE = f"or choose another home with CACO_HOME, and {_AGAIN}"
_FULL = f"the disk is full; free some space and {_AGAIN}"
_READ_ONLY = f"the file system is read-only; mount it writable, {_ELSEWHERE}"
_STORAGE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: f"the disk quota is used up; free some space and {_AGAIN}",
    errno.EROFS: _READ_ONLY,
    errno.EACCES: f"permission denied; give this user access, {_ELSEWHERE}",
    errno.EPERM: f"operation not permitted; give this user access, {_ELSEWHERE}",
}
"""Faults of the place where files are kept → what to do."""
_STORAGE_WORDS = {
    re.compile(words, re.IGNORECASE): line
    for words, line in {
        "database or disk is full": _FULL,
        "no space left on device": _FULL,
        # numpy; torch
        r"\d+ requested and \d+ written": _FULL,
        # GDAL, which does not pass the system's reason on
        r"TIFF\w+:\s*(Seek|Write) error|_tiff(Seek|Write)Proc": _FULL,
        r"PytorchStreamWriter failed writing|inline_container.*unexpected pos|basic_ios::clear: iostream error": _FULL,
        "disk quota exceeded": _STORAGE[errno.EDQUOT],
        "attempt to write a readonly database": _READ_ONLY,
        "read-only file system": _READ_ONLY,
        "unable to open database file|disk I/O error": (
            f"a database cannot be opened or written: the disk is full, read-only or closed to this user; repair that and {_AGAIN}"
        ),
    }.items()
}
"""The same where a library says so in words alone (SQLite, numpy, torch, Arrow)."""


class StorageError(UserError):
    """The place where files are kept is full, read-only or closed to this user."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and every error that led to it, each once: explicit causes first, then the errors it was raised during.

    Libraries that re-raise a stored exception can link errors in a ring.
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [error.__context__, error.__cause__]


def storage_error(error: BaseException | None, where: Path | None = None) -> StorageError | None:
    """One line on the storage fault that led to `error`, in whichever library it occurred; None if there is none.

    Args:
        error: any error.
        where: what was being written: for faults that name no file, and for errors that say nothing while the disk there is full.
    """
    for each in chain(error):
        file, line = None, None
        if isinstance(each, OSError):
            file = each.filename2 or each.filename
            # a refusal without a file concerns a socket or a process
            line = _STORAGE.get(each.errno or 0) if file is not None or not isinstance(each, PermissionError) else None
        line = line or next((line for words, line in _STORAGE_WORDS.items() if words.search(str(each))), None)
        if line is not None:
            file = file or where
            return StorageError(f"{os.fsdecode(file)}: {line}" if isinstance(file, str | bytes | Path) else line)
    return StorageError(f"{where}: {_FULL}") if where is not None and _is_full(where) else None


def _is_full(path: Path) -> bool:
    """Whether the file system of a file or folder, which need not exist yet, has no free block."""
    there = next((each for each in (path, *path.parents) if each.exists()), None)
    return there is not None and os.statvfs(there).f_bavail == 0


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """The text of an error on one line, cut to `limit` characters."""
    return " ".join(str(error).split())[:limit]


def explain_validation(error: ValidationError) -> str:
    """The first problem that pydantic found: `field=value: what is allowed`."""
    from pydantic import BaseModel

    problem = error.errors()[0]
    field, message = ".".join(str(part) for part in problem["loc"]), problem["msg"].removeprefix("Value error, ")
    # a whole section would be longer than the message
    shown = not isinstance(problem["input"], dict | BaseModel)
    return f"{field}={problem['input']!r}: {message}" if field and shown else f"{field}: {message}" if field else message
