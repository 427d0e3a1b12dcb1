"""Notes the state of the local files that a shard was read from, so that a repaired or replaced file is noticed.

A file counts as changed when its size or modification time differs. One that was refused also counts when its status changed
(`ctime`), which any writing changes: a repaired file may keep its size and get back its time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from caco_assets.core.atomic import write_atomic
from caco_assets.imagery.scenes.hrefs import unpack
from caco_assets.imagery.scenes.stac_item import BAND_MARK

Files = Mapping[str, list[str]]
"""Item → its files."""
State = list[int] | None
"""Size, modification time and status change in nanoseconds; None: there is no such file."""


def file_state(path: Path) -> State:
    """The state of a file now."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def is_changed(old: State, new: State, *, refused: bool) -> bool:
    """Whether a file is another than it was; `refused`: it could not be used then.

    One that is gone is not: what was read of it stays valid, and there is nothing to read again.
    """
    depth = 3 if refused else 2
    return new is not None and (old and old[:depth]) != new[:depth]


def local_files(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Item → its files on this machine (hrefs), of rows of `scenes.parquet`."""
    files: dict[str, list[str]] = {}
    for row in rows:
        if row["item_id"] is not None and row["item_id"] not in files:
            hrefs = {href.partition(BAND_MARK)[0] for href in unpack(row["hrefs"]).values()}
            files[row["item_id"]] = sorted(href for href in hrefs if "://" not in href and not href.startswith("/vsi"))
    return {item_id: hrefs for item_id, hrefs in files.items() if hrefs}


def states_of(files: Files, folder: Path) -> dict[str, State]:
    """Href → state now, of the files of `local_files`; relative ones start at `folder`."""
    return {href: file_state(folder / href) for href in sorted({href for hrefs in files.values() for href in hrefs})}


def write_note(note: Path, owner: str, states: Mapping[str, State], refused: Iterable[str] = ()) -> None:
    """Write the states that files had before they were read.

    Args:
        note: file to write.
        owner: what was made from them; a note of another owner does not count.
        states: from `states_of`.
        refused: items or files that could not be used.
    """
    content = {"owner": owner, "files": dict(states), "refused": sorted(refused)}
    write_atomic(note, json.dumps(content, sort_keys=True) + "\n")


def read_note(note: Path, owner: str) -> tuple[dict[str, State], set[str]] | None:
    """The states and refusals of `write_note`; None without a note of this owner."""
    try:
        content = json.loads(note.read_text())
        if content["owner"] != owner:
            return None
        return dict(content["files"]), set(content["refused"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def changed_items(
    files: Mapping[str, list[str]], old: Mapping[str, State], new: Mapping[str, State], refused: set[str]
) -> set[str]:
    """Items with a file that is another than it was."""
    return {
        item_id
        for item_id, hrefs in files.items()
        if any(is_changed(old.get(href), new.get(href), refused=item_id in refused) for href in hrefs)
    }
