"""Who may work in a workspace: one run that makes everything at a time, whichever scheduler or command has started it.

Two files are locked, and the locks go with their process however that ends. `turn.lock` is shared by runs that make single products
and held alone by a run of the whole chain; who comes second waits, and then finds made what the first has made, or goes on where
it died. `life/RUN.lock` says that a run's process is alive (see `launcher.py`).
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
"""What this process holds, by workspace."""
POLL_S = 1.0
SAY_S = 600.0
"""Between two lines of one who waits."""


def hold(settings: Settings, home: Path, run_id: str, who: str, *, whole: bool | None, part: bool = False) -> None:
    """Take a place for a run until this process ends, calls `release`, or begins another run in this workspace.

    Args:
        settings: the profile.
        home: of the orchestrator's instance.
        run_id: of the run.
        who: for the one who waits.
        whole: the run makes everything, and is alone; None: it makes no product, and disturbs nobody.
        part: it goes on in the middle of a vintage, with what an earlier run has made.

    Raises:
        UserError: as `turn`.
    """
    release(settings.paths.root)
    with ExitStack() as stack:
        stack.enter_context(alive(home, run_id))
        if whole is not None:
            stack.enter_context(turn(settings, run_id, who, whole=whole, part=part))
        _HELD[settings.paths.root] = stack.pop_all()


def release(root: Path | None = None) -> None:
    """Give the places back that this process holds: all, or that in one profile's folder."""
    for place in [root] if root else list(_HELD):
        if (held := _HELD.pop(place, None)) is not None:
            held.close()


atexit.register(release)


@contextmanager
def turn(settings: Settings, run_id: str, who: str, *, whole: bool, part: bool = False) -> Iterator[None]:
    """Hold a place in the workspace while the block runs; wait for it if need be.

    Args:
        settings: the profile.
        run_id: of the run.
        who: for the one who waits.
        whole: hold it alone.
        part: of a run that begins in the middle of its vintage.

    Raises:
        UserError: a run of another vintage makes single products, or has been here since, which this one would take for its own.
    """
    root = settings.paths.root
    root.mkdir(parents=True, exist_ok=True)
    holder = root / "turn.json"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    mine = {"who": who, "run_id": run_id, "vintage": settings.vintage, "host": platform.node(), "pid": os.getpid(), "since": now}
    with (root / "turn.lock").open("w") as file:
        said = -SAY_S
        while not (alone := try_lock(file)) and (whole or not try_lock(file, shared=True)):
            if time.monotonic() - said >= SAY_S:
                said = time.monotonic()
                logger.info(f"{root}: {_held_by(holder)} is at work here; waiting for it, nothing is lost")
            time.sleep(POLL_S)
        if part and (held := _read(holder)) and held["vintage"] != settings.vintage:
            raise UserError(
                f"vintage={settings.vintage}: the products here have become those of {held['vintage']}, so a part of this vintage "
                "cannot be made: launch the whole vintage, what can be reused is"
            )
        if alone:
            write_atomic(holder, json.dumps(mine, indent=1) + "\n")
            if not whole:
                try_lock(file, shared=True)
        elif (held := _read(holder)) and held["vintage"] != settings.vintage:
            raise UserError(
                f"vintage={settings.vintage}: {_held_by(holder)} makes products in {root}; run this when it is done, or with its "
                "vintage"
            )
        yield


@contextmanager
def alive(home: Path, run_id: str) -> Iterator[None]:
    """Say in an instance's home that the process of a run is alive, while the block runs."""
    file = life_sign(home, run_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        try_lock(held, shared=True)
        try:
            yield
        finally:
            # gone before the lock is: a run that ends in peace is never taken for dead
            file.unlink(missing_ok=True)


def life_sign(home: Path, run_id: str) -> Path:
    """The file that a run's process holds while it works."""
    return home / "life" / f"{run_id}.lock"


def is_dead(home: Path, run_id: str) -> bool:
    """Whether the process of a run has gone without ending its work; False where that cannot be told."""
    return is_locked(life_sign(home, run_id)) is False


def _held_by(holder: Path) -> str:
    held = _read(holder)
    if not held:
        return "another run"
    return f"{held['who']} of vintage {held['vintage']}, process {held['pid']} on {held['host']} since {held['since']},"


def _read(holder: Path) -> dict[str, str]:
    try:
        return json.loads(holder.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
