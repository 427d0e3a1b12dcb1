"""The workspace lock: one run of the whole chain at a time, whichever scheduler or command started it.

The kernel locks both files, so a lock ends with its process. `turn.lock` is shared by runs that make single products and
exclusive for a run of the whole chain; a second run waits, then reuses what the first has made or resumes where it died.
`life/RUN.lock` shows that the process of a run is alive (see `run_launcher.py`).
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.core.file_lock import is_locked, try_lock
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)

_HELD: dict[Path, ExitStack] = {}
"""The locks of this process, by profile folder."""
POLL_S = 1.0
LOG_EVERY_S = 600.0
"""Seconds between two log lines of a waiting run."""


def acquire(settings: Settings, home: Path, run_id: str, holder: str, *, exclusive: bool | None, resumed: bool = False) -> None:
    """Lock the workspace for a run until this process ends, calls `release`, or starts another run of this profile.

    Args:
        settings: the profile.
        home: of the Dagster instance.
        run_id: of the run.
        holder: names the run in the messages of waiting ones.
        exclusive: the run makes a whole vintage; None: it makes no product and needs no lock but its heartbeat.
        resumed: the run starts in the middle of a vintage, from products of an earlier run.

    Raises:
        UserError: see `workspace_lock`.
    """
    release(settings.paths.root)
    with ExitStack() as stack:
        stack.enter_context(heartbeat_lock(home, run_id))
        if exclusive is not None:
            stack.enter_context(workspace_lock(settings, run_id, holder, exclusive=exclusive, resumed=resumed))
        _HELD[settings.paths.root] = stack.pop_all()


def release(root: Path | None = None) -> None:
    """Release the locks of this process: all, or those of one profile's folder."""
    for folder in [root] if root else list(_HELD):
        if (held := _HELD.pop(folder, None)) is not None:
            held.close()


atexit.register(release)


@contextmanager
def workspace_lock(settings: Settings, run_id: str, holder: str, *, exclusive: bool, resumed: bool = False) -> Iterator[None]:
    """Hold the workspace lock while the block runs; wait for it if necessary.

    Args:
        settings: the profile.
        run_id: of the run.
        holder: names the run in the messages of waiting ones.
        exclusive: let no other run in.
        resumed: the run starts in the middle of its vintage.

    Raises:
        UserError: the products here belong to another vintage, or a run of another vintage is making some; this run would take them
            for its own.
    """
    root = settings.paths.root
    root.mkdir(parents=True, exist_ok=True)
    state = root / "turn.json"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    mine = {"who": holder, "run_id": run_id, "vintage": settings.vintage, "host": platform.node(), "pid": os.getpid(), "since": now}
    with (root / "turn.lock").open("w") as file:
        logged = -LOG_EVERY_S
        while not (alone := try_lock(file)) and (exclusive or not try_lock(file, shared=True)):
            if time.monotonic() - logged >= LOG_EVERY_S:
                logged = time.monotonic()
                logger.info(f"{root}: {_describe(state)} holds the workspace lock; waiting")
            time.sleep(POLL_S)
        if resumed and (held := _read(state)) and held["vintage"] != settings.vintage:
            raise UserError(
                f"vintage={settings.vintage}: the products here are those of {held['vintage']} by now, so a part of this vintage "
                "cannot be made; launch the whole vintage, unchanged products are reused"
            )
        if alone:
            write_atomic(state, json.dumps(mine, indent=1) + "\n")
            if not exclusive:
                try_lock(file, shared=True)
        elif (held := _read(state)) and held["vintage"] != settings.vintage:
            raise UserError(
                f"vintage={settings.vintage}: {_describe(state)} makes products in {root}; run this when it is done, or with its "
                "vintage"
            )
        yield


@contextmanager
def heartbeat_lock(home: Path, run_id: str) -> Iterator[None]:
    """Show in the home of an instance that the process of a run is alive, while the block runs."""
    file = lock_file(home, run_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        try_lock(held, shared=True)
        try:
            yield
        finally:
            # removed before it is unlocked: a run that ends by itself never counts as orphaned
            file.unlink(missing_ok=True)


def lock_file(home: Path, run_id: str) -> Path:
    """The file that the process of a run keeps locked."""
    return home / "life" / f"{run_id}.lock"


def is_orphaned(home: Path, run_id: str) -> bool:
    """Whether the process of a run died before the run ended; False if that is not known."""
    return is_locked(lock_file(home, run_id)) is False


def _describe(state: Path) -> str:
    held = _read(state)
    if not held:
        return "another run"
    return f"{held['who']} of vintage {held['vintage']}, process {held['pid']} on {held['host']} since {held['since']},"


def _read(state: Path) -> dict[str, str]:
    try:
        return json.loads(state.read_text())
    except (OSError, ValueError, RecursionError):  # being written, or damaged: only messages need it
        return {}
