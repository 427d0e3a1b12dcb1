"""Compares names of files as people write them: `.JPG` is `.jpg`, and `Train.csv` is `train.csv`."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from caco_assets.core.errors import UserError


def fold(name: str) -> str:
    """The form in which names are compared: without upper and lower case, and accents composed (macOS splits them)."""
    return unicodedata.normalize("NFC", name).casefold()


def by_fold(names: Iterable[str], where: object) -> dict[str, str]:
    """Compared form → name.

    Args:
        names: all different.
        where: their place, for the message.

    Raises:
        UserError: two names are the same when compared.
    """
    known: dict[str, str] = {}
    for name in names:
        if (other := known.setdefault(fold(name), name)) != name:
            raise UserError(f"{where}: {name} and {other} are both there; remove one")
    return known


def find_first(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first file of these names in these folders, by exact names, else by compared ones; None: there is none.

    Raises:
        UserError: see `find_file`.
    """
    # a folder can have 590 000 entries: it is listed only if no name is exactly right
    if exact := next((folder / name for folder in folders for name in names if (folder / name).is_file()), None):
        return exact
    for folder in folders:
        there = {fold(name) for name in os.listdir(folder)} if folder.is_dir() else set()  # noqa: PTH208
        for name in names:
            if fold(name) in there and (found := find_file(folder, name)) is not None:
                return found
    return None


def find_file(folder: Path, name: str) -> Path | None:
    """The file of this name in a folder, else the one whose name is the same when compared; None: there is none.

    Raises:
        UserError: several are the same when compared, and none is exactly it.
    """
    if (folder / name).is_file():
        return folder / name
    try:
        close = [entry for entry in folder.iterdir() if fold(entry.name) == fold(name) and entry.is_file()]
    except OSError:
        return None
    if len(close) > 1:
        raise UserError(f"{folder}: {' and '.join(sorted(entry.name for entry in close))} are both there; remove one")
    return close[0] if close else None
